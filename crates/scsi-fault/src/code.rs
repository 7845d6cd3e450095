//! A value of the standards, by name or by number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value a standard gives both a name and a number. Either may be written; a number need not have a
/// name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The number itself.
    Number(u8),
    /// The name exactly as the standard writes it, in any case of letters.
    Name(String),
}

impl From<u8> for Code {
    fn from(number: u8) -> Self {
        Code::Number(number)
    }
}

impl From<&str> for Code {
    fn from(name: &str) -> Self {
        Code::Name(name.to_owned())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Number(number) => write!(f, "{number:#04x}"),
            Code::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Code::Number(number) => serializer.serialize_u8(*number),
            Code::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Code;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a standard's name or a number from 0 to 255")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Code, E> {
                let number = u8::try_from(number);
                number.map(Code::Number).map_err(|_| E::custom("the number is not from 0 to 255"))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Code, E> {
                let number = u8::try_from(number);
                number.map(Code::Number).map_err(|_| E::custom("the number is not from 0 to 255"))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Code, E> {
                Ok(Code::from(name))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
