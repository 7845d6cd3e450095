//! What goes wrong.

use serde::{Deserialize, Serialize};

/// What a server does wrong with a request; all that is said happens. The steps, in their order: the request is
/// fetched; it waits ([`Effect::delay_us`], [`Effect::hold`]); it is executed; its result is committed, as the effect
/// wants it or else as it went.
///
/// One that is given an errno or a result is not executed, unless [`Effect::execute`] says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Effect {
    /// It waits so many microseconds before it is executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_us: Option<u64>,
    /// It waits until something else happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Whether it is executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute: Option<bool>,
    /// It fails with this error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<ErrorName>,
    /// What is committed, whatever was done: bytes, or a negated errno. The driver takes any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<i32>,
    /// Only the first so many bytes are done, and that is told; 0 is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short: Option<u32>,
    /// All is done, and so many bytes more are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong: Option<u32>,
    /// It is committed with a buffer that is not the one its data is in. Where the driver copies, only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer: Option<WrongBuffer>,
    /// The server ends without a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub die: Option<DiePoint>,
}

/// What ends the wait of a request. The end of its server does too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// The server is told to.
    UntilReleased,
    /// Nothing: it is never committed.
    ForEver,
}

/// Where the data of a request is said to be, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrongBuffer {
    /// At an address where there is nothing.
    Unmapped,
    /// In a buffer as long, whose bytes are A5h.
    Other,
}

/// Where in the life of a request its server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiePoint {
    /// It is fetched; nothing of it is done.
    Fetched,
    /// It is executed: the medium is changed, nothing is committed.
    Executed,
    /// Its result is committed.
    Committed,
}

/// An error that the block layer has a status for (`block/blk-core.c:blk_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ErrorName {
    /// Input/output error.
    Eio,
    /// Not supported.
    Eopnotsupp,
    /// Timed out.
    Etimedout,
    /// No space.
    Enospc,
    /// Link severed: the transport is broken.
    Enolink,
    /// Remote I/O error: the target is broken.
    Eremoteio,
    /// Invalid exchange: a reservation conflicts.
    Ebade,
    /// No data available: the medium is broken.
    Enodata,
    /// The protection information does not fit.
    Eilseq,
    /// No memory.
    Enomem,
    /// Try again.
    Eagain,
    /// Busy.
    Ebusy,
    /// Invalid.
    Einval,
}

impl ErrorName {
    /// Its number (`include/uapi/asm-generic/errno.h`).
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            ErrorName::Eio => 5,
            ErrorName::Eagain => 11,
            ErrorName::Enomem => 12,
            ErrorName::Ebusy => 16,
            ErrorName::Einval => 22,
            ErrorName::Enospc => 28,
            ErrorName::Ebade => 52,
            ErrorName::Enodata => 61,
            ErrorName::Enolink => 67,
            ErrorName::Eilseq => 84,
            ErrorName::Eopnotsupp => 95,
            ErrorName::Etimedout => 110,
            ErrorName::Eremoteio => 121,
        }
    }
}

impl Effect {
    /// Failure with this error.
    #[must_use]
    pub fn errno(errno: ErrorName) -> Self {
        Effect { errno: Some(errno), ..Effect::default() }
    }

    /// Execution of so many bytes.
    #[must_use]
    pub fn short(bytes: u32) -> Self {
        Effect { short: Some(bytes), ..Effect::default() }
    }

    /// Execution, and so many bytes more are told.
    #[must_use]
    pub fn overlong(bytes: u32) -> Self {
        Effect { overlong: Some(bytes), ..Effect::default() }
    }

    /// Execution after so many microseconds.
    #[must_use]
    pub fn delay_us(delay: u64) -> Self {
        Effect { delay_us: Some(delay), ..Effect::default() }
    }

    /// Execution once it is released.
    #[must_use]
    pub fn hold() -> Self {
        Effect { hold: Some(Hold::UntilReleased), ..Effect::default() }
    }

    /// Never.
    #[must_use]
    pub fn never() -> Self {
        Effect { hold: Some(Hold::ForEver), ..Effect::default() }
    }

    /// Execution, and the data is said to be elsewhere.
    #[must_use]
    pub fn buffer(buffer: WrongBuffer) -> Self {
        Effect { buffer: Some(buffer), ..Effect::default() }
    }

    /// The server ends at this point.
    #[must_use]
    pub fn die(die: DiePoint) -> Self {
        Effect { die: Some(die), ..Effect::default() }
    }

    /// Whether what it happens to is executed.
    #[must_use]
    pub fn executes(&self) -> bool {
        self.execute.unwrap_or(self.errno.is_none() && self.result.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpName, Rule, Scenario, When};

    #[test]
    fn a_file_says_what_rust_says() {
        let text = r#"
            format = 1
            words = "ublk"
            seed = 3

            [[rule]]
            name = "full"
            when = { op = "write", sectors = { first = 8, last = 15 } }
            effect = { errno = "ENOSPC", execute = true }

            [[rule]]
            name = "end"
            effect = { die = "executed", hold = "for-ever", buffer = "unmapped" }
            after = "full"
        "#;
        let full = Effect { execute: Some(true), ..Effect::errno(ErrorName::Enospc) };
        let end = Effect {
            hold: Some(Hold::ForEver),
            buffer: Some(WrongBuffer::Unmapped),
            ..Effect::die(DiePoint::Executed)
        };
        let rules = vec![
            Rule::new("full", full).when(When::op(OpName::Write).sectors(8, 15)),
            Rule::new("end", end).after("full"),
        ];
        assert_eq!(Scenario::parse(text).expect("a sound scenario"), Scenario::new(3, rules));
    }

    #[test]
    fn what_nobody_knows_is_named() {
        let text = |effect: &str| {
            let head = "format = 1\nwords = \"ublk\"\n[[rule]]\nname = \"r\"\n";
            Scenario::parse(&format!("{head}effect = {effect}\n")).expect_err(effect).to_string()
        };
        assert!(text("{ errno = \"EFOO\" }").contains("unknown variant `EFOO`"));
        assert!(text("{ shrt = 1 }").contains("unknown field `shrt`"));
    }

    #[test]
    fn an_answer_of_its_own_is_not_executed() {
        assert!(Effect::short(0).executes() && Effect::hold().executes());
        assert!(!Effect::errno(ErrorName::Eio).executes());
        assert!(!Effect { result: Some(0), ..Effect::default() }.executes());
    }
}
