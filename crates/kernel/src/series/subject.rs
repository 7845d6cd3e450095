//! The tags at the start of a patch's subject: `[RFC PATCH v4 2/3]`.

use std::fmt;

/// More patches than this is no count, but something else with a slash in it.
const PATCHES_MAX: u32 = 9999;

/// A patch's place in its posting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    /// Its place, from 1; the cover letter has 0.
    pub n: u32,
    /// How many patches there are.
    pub of: u32,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.n, self.of)
    }
}

/// A subject taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Whether it begins with `Re:` or another language's word for it.
    pub(super) is_reply: bool,
    /// Whether a tag says that it is a patch, or at least has a number.
    pub(super) is_patch: bool,
    /// 1 where no tag says another.
    pub(super) version: u32,
    /// `2/3`.
    pub(super) number: Option<Number>,
    /// What remains without tags.
    pub(super) title: String,
}

/// What mail programs put before the subject of an answer or of a mail passed on.
const REPLIES: &[&str] = &["re", "aw", "sv", "antw", "fw", "fwd", "wg", "回复", "答复", "回覆"];

impl Subject {
    pub(super) fn parse(text: &str) -> Subject {
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        let mut subject = Subject {
            is_reply: false,
            is_patch: false,
            version: 1,
            number: None,
            title: String::new(),
        };
        let mut rest = text.as_str();
        loop {
            if let Some((tag, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
            {
                // Mercurial writes `1 of 3`.
                let tag = tag.replace(" of ", "/");
                tag.split([' ', ',']).for_each(|word| subject.take(word));
                rest = after.trim_start();
            } else if let Some((word, after)) = rest.split_once([':', '：'])
                && REPLIES.contains(&word.trim_end().to_lowercase().as_str())
            {
                subject.is_reply = true;
                rest = after.trim_start();
            } else {
                break;
            }
        }
        // `[PATCH] 1/3: title`, as some wrote before there was a tool for it.
        if subject.is_patch && subject.number.is_none() {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            subject.number = number(word.trim_matches(['(', ')', ':']));
            if subject.number.is_some() {
                rest = after;
            }
        }
        subject.title = rest.to_owned();
        subject
    }

    /// Takes one word of a tag.
    fn take(&mut self, word: &str) {
        let lower = word.to_ascii_lowercase();
        // `PATCHv2` is as common as `PATCH v2`.
        let lower = match lower.strip_prefix("patch") {
            Some(after) => {
                self.is_patch = true;
                after.trim_start_matches(['-', '_', ':'])
            }
            None => lower.as_str(),
        };
        if lower == "rfc" {
            self.is_patch = true;
        } else if let Some(version) = lower.strip_prefix('v').and_then(|v| v.parse().ok()) {
            self.version = version;
        } else if let Some(number) = number(lower) {
            self.number = Some(number);
            self.is_patch = true;
        }
    }
}

/// `2/3`.
fn number(word: &str) -> Option<Number> {
    let (n, of) = word.split_once('/')?;
    let number = Number { n: n.parse().ok()?, of: of.parse().ok()? };
    (number.n <= number.of && (1..=PATCHES_MAX).contains(&number.of)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_real_lists_are_understood() {
        let n = |n, of| Some(Number { n, of });
        for (text, is_reply, is_patch, version, number, title) in [
            ("[PATCH] a: b", false, true, 1, None, "a: b"),
            ("[PATCH 2/3] a: b", false, true, 1, n(2, 3), "a: b"),
            ("[RFC PATCH v4 3/3] bsg: x", false, true, 4, n(3, 3), "bsg: x"),
            ("[RFC v2 01/12] x", false, true, 2, n(1, 12), "x"),
            ("[PATCHv3 2/5] x", false, true, 3, n(2, 5), "x"),
            ("[PATCH V7 00/18] cover", false, true, 7, n(0, 18), "cover"),
            ("[PATCH net-next v2 1/2] x", false, true, 2, n(1, 2), "x"),
            ("[PATCH v5.15 1/2] x", false, true, 1, n(1, 2), "x"),
            ("[for-next][PATCH 03/12] x", false, true, 1, n(3, 12), "x"),
            ("[PATCH-v2 1/2] x", false, true, 2, n(1, 2), "x"),
            ("[PATCH_v2 1/2] x", false, true, 2, n(1, 2), "x"),
            ("[patch:v2] x", false, true, 2, None, "x"),
            ("[RFC] x", false, true, 1, None, "x"),
            ("[2/2] x", false, true, 1, n(2, 2), "x"),
            ("[PATCH 9/9999] x", false, true, 1, n(9, 9999), "x"),
            ("[PATCH 9/10000] x", false, true, 1, None, "x"),
            ("[PATCH 0/0] x", false, true, 1, None, "x"),
            ("[PATCH 2/3] 1/2 of it", false, true, 1, n(2, 3), "1/2 of it"),
            ("[PATCH] 1/2", false, true, 1, n(1, 2), ""),
            ("1/2 of it", false, false, 1, None, "1/2 of it"),
            ("[PATCH 1 of 12] x", false, true, 1, n(1, 12), "x"),
            ("[PATCH] 1/2: x y", false, true, 1, n(1, 2), "x y"),
            ("[PATCH v2] (1/2) x", false, true, 2, n(1, 2), "x"),
            ("[PATCH] v2 of x", false, true, 1, None, "v2 of x"),
            ("[PATCH,v2, 1/2] x", false, true, 2, n(1, 2), "x"),
            (
                "[PATCH RESEND v2\n 1/2]  folded\n\tsubject",
                false,
                true,
                2,
                n(1, 2),
                "folded subject",
            ),
            ("Re: [PATCH v2 1/3] x", true, true, 2, n(1, 3), "x"),
            ("RE: AW: [PATCH] x", true, true, 1, None, "x"),
            ("Re : [PATCH] x", true, true, 1, None, "x"),
            ("Re：[PATCH] x", true, true, 1, None, "x"),
            ("回复: [PATCH] x", true, true, 1, None, "x"),
            ("[EXT] Re: [PATCH 1/2] x", true, true, 1, n(1, 2), "x"),
            (
                "scsi: bsg: [1/2] is no tag here",
                false,
                false,
                1,
                None,
                "scsi: bsg: [1/2] is no tag here",
            ),
            ("re-export the symbol", false, false, 1, None, "re-export the symbol"),
            ("[PATCH 3/2] x", false, true, 1, None, "x"),
            ("[PATCH 1/4000000000] x", false, true, 1, None, "x"),
            ("[PATCH 1/99999999999999] x", false, true, 1, None, "x"),
            ("[GIT PULL] x", false, false, 1, None, "x"),
            ("[unclosed", false, false, 1, None, "[unclosed"),
            ("", false, false, 1, None, ""),
        ] {
            let expected = Subject { is_reply, is_patch, version, number, title: title.to_owned() };
            assert_eq!(Subject::parse(text), expected, "{text:?}");
        }
    }
}
