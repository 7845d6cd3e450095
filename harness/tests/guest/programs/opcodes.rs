//! REPORT SUPPORTED OPERATION CODES as sg_opcodes reads it, against what the target calls the commands.

use bsg::{Access, BsgIoctl, Passthrough, Request};
use harness::declare;

use super::{STORAGE, on_bsg, sends_one, thin_disk};

/// A line of sg_opcodes.
#[derive(Debug)]
struct Line {
    opcode: u8,
    service_action: Option<u8>,
    cdb_len: usize,
    name: String,
}

/// `5e  0  10  0,0  Persistent reserve in, read keys`: operation code, service action if there is one,
/// length, limits, and sg_opcodes' own name.
fn line(text: &str) -> Option<Line> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let limits = words.iter().position(|word| *word == "0,0")?;
    let hex = |word: &str| u8::from_str_radix(word, 16).ok();
    let (service_action, len) = match words[1..limits] {
        [len] => (None, len),
        [service_action, len] => (Some(hex(service_action)?), len),
        _ => return None,
    };
    Some(Line {
        opcode: hex(words[0])?,
        service_action,
        cdb_len: len.parse().ok()?,
        name: words[limits + 1..].join(" "),
    })
}

/// sg_opcodes' name as the standards have it: in capitals, a service action in parentheses.
fn standard(name: &str) -> String {
    let name = name.to_uppercase();
    name.split_once(", ").map_or(name.clone(), |(name, action)| format!("{name} ({action})"))
}

/// Where the names differ, sg_opcodes' and ours.
const DIFFERENT: [(&str, &str); 2] = [
    // SPC-5 has a second one, of 16 bytes; SPC-4, which ours is of, only one without a number.
    ("READ BUFFER(10)", "READ BUFFER"),
    // SBC-4 has a second one, of 32 bytes; SBC-3, which ours is of, only one without a number.
    ("GET LBA STATUS(16)", "GET LBA STATUS"),
];

/// Everything that is listed, by the name of another implementation, is what the target takes it for.
#[test]
fn sg_opcodes_knows_each_command_by_the_name_the_target_has_for_it() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (ran, _) = sends_one(&lun, "sg_opcodes", &[]);
    let lines: Vec<Line> = ran.ended_with(0).lines().filter_map(line).collect();
    assert_eq!(lines.len(), 50, "{}", ran.said);
    let mut bsg = BsgIoctl::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    let mut different = Vec::new();
    for Line { opcode, service_action, cdb_len, name } in lines {
        let mut cdb = vec![0; cdb_len];
        cdb[0] = opcode;
        cdb[1] = service_action.unwrap_or(0);
        bsg.execute(Request::new(&cdb)).expect("executed");
        let ours = lun.journal().entries.pop().expect("it came").command;
        let theirs = standard(&name);
        if ours != theirs {
            different.push((theirs, ours));
        }
    }
    let known = DIFFERENT.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned()));
    assert_eq!(different, known);
}

/// SPC-4, CDB USAGE DATA: READ(10) as SBC-3 has it, with DPO and FUA, without protection.
#[test]
fn sg_opcodes_decodes_one_command() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (ran, entry) = sends_one(&lun, "sg_opcodes", &["--opcode=0x28"]);
    ran.says(&[
        "Opcode=0x28",
        "Command_name: Read(10)",
        "Command is supported [conforming to SCSI standard]",
        "Usage data: 28 18 ff ff ff ff 00 ff ff 04",
    ]);
    assert_eq!(entry.cdb, "a30c01280000000020000000");
    // FORMAT UNIT.
    let absent = on_bsg(&lun, "sg_opcodes", &["--opcode=0x04"]);
    absent.says(&["Opcode=0x04", "Command_name: Format Unit", "Command is NOT supported"]);
}

/// SPC-4, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
#[test]
fn sg_opcodes_decodes_the_task_management_functions() {
    declare!(Contract, STORAGE);
    let (ran, entry) = sends_one(&thin_disk(), "sg_opcodes", &["--tmf"]);
    ran.says(&[
        "Task Management Functions supported by device:",
        "Abort task",
        "Abort task set",
        "Clear task set",
        "Logical unit reset",
        "Query task",
        "Query task set",
        "I_T nexus reset",
    ]);
    assert_eq!(entry.command, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS");
}
