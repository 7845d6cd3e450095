//! Sense data to be sent.

use serde::{Deserialize, Serialize};

use crate::Code;

/// Sense data: by name, by its three codes, or as bytes. `raw` goes alone; the other fields go with
/// `name` or with `key`, `asc` and `ascq`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Sense {
    /// The standard's text of an additional sense code; it brings a sense key, which `key` replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SENSE KEY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Code>,
    /// ADDITIONAL SENSE CODE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asc: Option<u8>,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ascq: Option<u8>,
    /// Which format; left out, the one the unit uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<SenseFormat>,
    /// Whether it is about an earlier command.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// INFORMATION.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_specific: Option<u64>,
    /// Which field is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_pointer: Option<FieldPointer>,
    /// PROGRESS INDICATION in 65536ths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<u16>,
    /// ACTUAL RETRY COUNT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<u16>,
    /// Only so many of its bytes are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<usize>,
    /// The bytes themselves, in hex, whatever they mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// The two formats of sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SenseFormat {
    /// Fixed format.
    Fixed,
    /// Descriptor format.
    Descriptor,
}

/// Field pointer sense key specific data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FieldPointer {
    /// FIELD POINTER.
    pub byte: u16,
    /// BIT POINTER, 7 to 0; without it BPV is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit: Option<u8>,
    /// C/D is zero: the field is in the parameter data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_data: bool,
}

impl Sense {
    /// By the standard's text.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Sense { name: Some(name.to_owned()), ..Sense::default() }
    }

    /// By SENSE KEY, ADDITIONAL SENSE CODE and QUALIFIER.
    #[must_use]
    pub fn codes(key: u8, asc: u8, ascq: u8) -> Self {
        let (key, asc, ascq) = (Some(key.into()), Some(asc), Some(ascq));
        Sense { key, asc, ascq, ..Sense::default() }
    }

    /// These bytes.
    #[must_use]
    pub fn raw(bytes: &[u8]) -> Self {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Sense { raw: Some(hex), ..Sense::default() }
    }

    /// The same, in this format.
    #[must_use]
    pub fn format(self, format: SenseFormat) -> Self {
        Sense { format: Some(format), ..self }
    }

    /// The same, with INFORMATION.
    #[must_use]
    pub fn information(self, information: u64) -> Self {
        Sense { information: Some(information), ..self }
    }

    /// The same, about an earlier command.
    #[must_use]
    pub fn deferred(self) -> Self {
        Sense { deferred: true, ..self }
    }

    /// The same, cut to so many bytes.
    #[must_use]
    pub fn truncate(self, len: usize) -> Self {
        Sense { truncate: Some(len), ..self }
    }
}
