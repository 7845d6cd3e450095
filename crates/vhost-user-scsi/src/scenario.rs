//! Scenario files: read, checked, installed.

use std::{fs, io, path::Path};

use control::Faults;
use scsi_fault::Scenario;

use crate::{
    faults::{self, RuleProblem},
    target::{ChangeError, Target},
};

/// Why a file is no scenario for this target.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioProblem {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is none.
    #[error(transparent)]
    Scenario(#[from] fault::ScenarioError),
    /// A rule cannot be carried out.
    #[error(transparent)]
    Rule(#[from] RuleProblem),
}

/// Reads a scenario and sees to it that each rule can be carried out, by a daemon that is `hostile` or not.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path, hostile: bool) -> Result<Scenario, ScenarioProblem> {
    parse(&fs::read_to_string(path)?, hostile)
}

/// The same of the text of such a file.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, hostile: bool) -> Result<Scenario, ScenarioProblem> {
    let scenario = Scenario::parse(text)?;
    // Where a unit is makes no difference to what is wrong with a rule.
    faults::compile(&scenario.rules, device_server::LunAddress { target: 0, lun: 0 }, hostile)?;
    Ok(scenario)
}

/// Has a scenario happen on every unit its rules are about, those that are plugged later too.
///
/// # Errors
/// As [`Target::set_standing_faults`].
pub fn install(target: &Target, scenario: &Scenario) -> Result<(), ChangeError> {
    let faults = Faults { seed: scenario.seed, rules: scenario.rules.clone() };
    target.set_standing_faults(&faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples that tests and users start from.
    #[test]
    fn scenarios_of_this_repository_are_sound() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness/scenarios");
        let files: Vec<_> = fs::read_dir(directory)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert!(files.len() >= 35, "{files:?}");
        for file in files {
            let scenario =
                read(&file, true).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(!scenario.rules.is_empty(), "{}", file.display());
        }
    }

    fn problem(rule: &str) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("scenario.toml");
        let text = format!("format = 1\nwords = \"scsi\"\n[[rule]]\nname = \"r\"\n{rule}\n");
        fs::write(&path, text).expect("our directory");
        read(&path, true).expect_err(rule).to_string()
    }

    #[test]
    fn mistakes_are_named_with_what_is_known() {
        for (rule, words) in [
            ("effect = {}", "the effect is nothing"),
            ("effect = { stauts = 8 }", "unknown field `stauts`, expected one of `delay-us`"),
            ("effect = { status = \"BSY\" }", "no status `BSY`; known are GOOD, CHECK CONDITION"),
            ("effect = { status = 256 }", "not from 0 to 255"),
            ("effect = { status = -1 }", "not from 0 to 255"),
            ("effect = { status = 1.5 }", "a standard's name or a number"),
            ("effect = { response = \"LOST\" }", "no response `LOST`; known are OK, OVERRUN"),
            ("effect = { response = 13 }", "virtio has no response 13"),
            ("effect = { sense = {} }", "`sense` needs `name`"),
            ("effect = { sense = { name = \"OOPS\" } }", "no additional sense code `OOPS`"),
            ("effect = { sense = { key = 16, asc = 0, ascq = 0 } }", "four bits"),
            ("effect = { sense = { raw = \"7\" } }", "no whole number of bytes"),
            ("effect = { sense = { raw = \"70\", deferred = true } }", "`sense.raw` says it all"),
            (
                "effect = { sense = { key = 2, asc = 4, ascq = 1, progress = 1, retry-count = 1 } }",
                "only one of",
            ),
            ("effect = { delay-us = 2, delay-up-to-us = 1 }", "it has to grow"),
            ("effect = { delay-us = 9999999999 }", "3600000000 is the most"),
            ("effect = { delay-us = 1, hold = \"for-ever\" }", "cannot wait both"),
            ("effect = { hold = \"a-while\" }", "unknown variant `a-while`"),
            ("effect = { hold = { order = [0, 0] } }", "each position from 0 to 1 once"),
            ("effect = { hold = { order = [] } }", "once"),
            ("effect = { write = \"lost\", status = 8 }", "`write` says how it is executed"),
            ("effect = { write = \"lost\", data-out-limit = 1 }", "both say what is written"),
            ("effect = { residual = 1 }\nwhen = { command = \"REED\" }", "no command `REED`"),
            ("effect = { residual = 1 }\nwhen = { lun = 70000 }", "70000"),
            ("effect = { residual = 1 }\nwhen = { lba = { first = 2, last = 1 } }", "begins at 2"),
            ("effect = { residual = 1 }\nwhen = { cdb = { value = \"0g\" } }", "in hex"),
            (
                "effect = { residual = 1 }\nwhen = { cdb = { value = \"00\", mask = \"ffff\" } }",
                "no more mask than value",
            ),
            (
                "effect = { residual = 1 }\nwhen = { command = \"READ CAPACITY(16)\", service-action = 1 }",
                "service action is 0x10, not 0x1",
            ),
            (
                "effect = { residual = 1 }\nwhen = { task-management = \"any\" }",
                "a task management function has no `residual`",
            ),
            (
                "effect = { response = 0 }\nwhen = { task-management = \"any\", command = 0 }",
                "a task management function has no `command`",
            ),
            (
                "effect = { response = 0 }\nwhen = { task-management = \"RESET\" }",
                "no task management function `RESET`; known are ABORT TASK",
            ),
            (
                "effect = { response = 0 }\nwhen = { task-management = 9 }",
                "virtio has no task management function 9",
            ),
        ] {
            let problem = problem(rule);
            assert!(problem.contains(words), "{rule}: {problem}");
        }
    }
}
