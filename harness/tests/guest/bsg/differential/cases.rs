//! Commands of all kinds, with data of all shapes, and what goes wrong with them.

use std::fmt;

use proptest::{collection::vec, prelude::*, sample::select};
use scsi_fault::{DataIn, Effect, Sense, WriteFault};

use crate::bsg::cdb::{self, Size};

/// Blocks of a unit: few, so that commands meet each other's data and the end.
pub(super) const BLOCKS: u8 = 16;

/// Commands one after the other.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Whether blocks have 4096 bytes instead of 512.
    pub(super) long_blocks: bool,
    pub(super) steps: Vec<Step>,
}

/// One command.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) cdb: Vec<u8>,
    pub(super) transfer: Transfer,
    /// Where in its page the data begins.
    pub(super) offset: usize,
    pub(super) sense_capacity: u32,
    /// What befalls it, once.
    pub(super) fault: Option<Effect>,
}

/// In a line: what fails is read by people.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { cdb, transfer, offset, sense_capacity, fault } = self;
        let hex: String = cdb.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "cdb {hex} {transfer:?} at {offset} sense {sense_capacity}")?;
        match fault.as_ref().map(serde_json::to_string) {
            None => Ok(()),
            Some(text) => write!(f, " fault {}", text.map_err(|_| fmt::Error)?),
        }
    }
}

/// Data of a command, and how much, whatever its CDB says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transfer {
    None,
    In(usize),
    /// With what the bytes are marked.
    Out(usize, u8),
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    any::<bool>().prop_flat_map(|long_blocks| {
        let block_len = if long_blocks { 4096 } else { 512 };
        let everything = Step {
            cdb: cdb::read(Size::Ten, 0, BLOCKS),
            transfer: Transfer::In(block_len * usize::from(BLOCKS)),
            offset: 0,
            sense_capacity: 252,
            fault: None,
        };
        vec(step(block_len), 1..=3).prop_map(move |mut steps| {
            // What one way refuses alone is the end: from then on the units are no longer the same.
            match steps.iter().position(|step| step.cdb.len() < 6) {
                Some(short) => steps.truncate(short + 1),
                None => steps.push(everything.clone()),
            }
            Case { long_blocks, steps }
        })
    })
}

fn step(block_len: usize) -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(None), effect().prop_map(Some)];
    let offset =
        prop_oneof![2 => Just(0), 1 => select(vec![1, 2, 3, 4, 8, 511, 512, 2048, 4092, 4095])];
    let sense_capacity =
        prop_oneof![2 => Just(252), 1 => select(vec![0, 1, 7, 8, 17, 18, 95, 96, 97])];
    (command(block_len), offset, sense_capacity, fault).prop_map(
        |((cdb, transfer), offset, sense_capacity, fault)| {
            // What a way refuses meets no fault, which would wait for the next command.
            let fault = fault.filter(|_| (6..=32).contains(&cdb.len()));
            Step { cdb, transfer, offset, sense_capacity, fault }
        },
    )
}

fn command(block_len: usize) -> BoxedStrategy<(Vec<u8>, Transfer)> {
    let blocks = move || {
        let size = select(Size::ALL.to_vec());
        (size, 0..BLOCKS + 2, 1..=4_u8, any::<u8>()).prop_map(move |(size, lba, blocks, mark)| {
            (size, u32::from(lba), blocks, block_len * usize::from(blocks), mark)
        })
    };
    let read = blocks()
        .prop_map(|(size, lba, blocks, len, _)| (cdb::read(size, lba, blocks), Transfer::In(len)));
    let write = blocks().prop_map(|(size, lba, blocks, len, mark)| {
        (cdb::write(size, lba, blocks), Transfer::Out(len, mark))
    });
    let odd = (prop_oneof![blocks().prop_map(|b| cdb::read(b.0, b.1, b.2)), other()], transfer());
    let any_bytes = (vec(any::<u8>(), 0..=36), transfer());
    prop_oneof![3 => read, 3 => write, 3 => odd, 2 => any_bytes].boxed()
}

/// CDBs of SPC-4 and SBC-3 other than plain reads and writes.
fn other() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<Vec<u8>> = vec![
        // TEST UNIT READY, REQUEST SENSE in both formats, INQUIRY: standard, VPD pages 00h, 83h and B0h.
        vec![0x00, 0, 0, 0, 0, 0],
        vec![0x03, 0, 0, 0, 96, 0],
        vec![0x03, 1, 0, 0, 96, 0],
        vec![0x12, 0, 0, 0, 96, 0],
        vec![0x12, 1, 0x00, 0, 252, 0],
        vec![0x12, 1, 0x83, 1, 0, 0],
        vec![0x12, 1, 0xb0, 0, 64, 0],
        // READ CAPACITY(10) and (16), MODE SENSE(6) and (10) of all pages, REPORT LUNS.
        vec![0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
        vec![0x1a, 0, 0x3f, 0, 192, 0],
        vec![0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0],
        vec![0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        // SYNCHRONIZE CACHE(10), VERIFY(10) of the medium alone and against data (BYTCHK 01b, 11b).
        vec![0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0x2f, 0, 0, 0, 0, 2, 0, 0, 2, 0],
        vec![0x2f, 2, 0, 0, 0, 2, 0, 0, 2, 0],
        vec![0x2f, 6, 0, 0, 0, 2, 0, 0, 2, 0],
        // WRITE SAME(10) and (16), with UNMAP too, COMPARE AND WRITE, UNMAP.
        vec![0x41, 0, 0, 0, 0, 1, 0, 0, 5, 0],
        vec![0x93, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0],
        vec![0x93, 8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0],
        vec![0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        vec![0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
        // START STOP UNIT: stop, start. PERSISTENT RESERVE IN, READ KEYS. Reserved operation code.
        vec![0x1b, 0, 0, 0, 0, 0],
        vec![0x1b, 0, 0, 0, 1, 0],
        vec![0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0],
        vec![0xff, 0, 0, 0, 0, 0],
    ];
    select(fixed)
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let len =
        || select(vec![0, 1, 7, 24, 36, 96, 255, 511, 512, 513, 1024, 4095, 4096, 5000, 16_384]);
    prop_oneof![
        1 => Just(Transfer::None),
        2 => len().prop_map(Transfer::In),
        2 => (len(), any::<u8>()).prop_map(|(len, mark)| Transfer::Out(len, mark)),
    ]
}

/// Faults of one command. What waits for ever, or takes the daemon along, is not among them.
fn effect() -> impl Strategy<Value = Effect> {
    let len = || select(vec![0_u64, 1, 8, 511, 512, 513, 1024, 4096, 5000]);
    let data_in = prop_oneof![
        len().prop_map(DataIn::Limit),
        select(vec![1_u64, 10, 512]).prop_map(DataIn::Extend),
        len().prop_map(DataIn::CorruptFrom),
    ];
    let write = prop_oneof![
        Just(WriteFault::Lost),
        len().prop_map(WriteFault::Torn),
        (-8..=8_i64).prop_map(WriteFault::Misdirected),
        len().prop_map(WriteFault::CorruptFrom),
        (1..=2_u32).prop_map(WriteFault::Stale),
    ];
    let limit = |limit| Effect { data_out_limit: Some(limit), ..Effect::default() };
    let residual = select(vec![0_u32, 1, 256, 512, 1024, 70_000]);
    prop_oneof![
        4 => answer(),
        1 => (answer(), residual.clone()).prop_map(|(answer, len)| answer.with_residual(len)),
        1 => answer().prop_map(Effect::executed),
        2 => data_in.prop_map(Effect::data_in),
        1 => len().prop_map(limit),
        2 => write.prop_map(Effect::write),
    ]
}

/// Answers that the device did not find itself.
fn answer() -> impl Strategy<Value = Effect> {
    // SAM-5, Status codes, with the obsolete ones; CHECK CONDITION alone has no sense data.
    let status = select(vec![0x02, 0x04, 0x08, 0x10, 0x14, 0x18, 0x22, 0x28, 0x30, 0x40_u8]);
    // virtio 1.2, 5.6.6.1 and 5.6.6.2.
    let response = 1..=12_u8;
    // Response codes 70h to 73h, and any sense key.
    let raw = (0x70..=0x73_u8, vec(any::<u8>(), 17..=95))
        .prop_map(|(code, rest)| Sense::raw(&[vec![code], rest].concat()));
    let named = select(vec![
        "UNRECOVERED READ ERROR",
        "WRITE ERROR",
        "WRITE PROTECTED",
        "SPACE ALLOCATION FAILED WRITE PROTECT",
        "POWER ON OCCURRED",
        "LOGICAL UNIT COMMUNICATION FAILURE",
        "LOGICAL UNIT IS IN PROCESS OF BECOMING READY",
        "RECOVERED DATA WITH RETRIES",
        "INTERNAL TARGET FAILURE",
    ]);
    let sense = prop_oneof![raw, named.prop_map(Sense::named)];
    let beside = |(status, sense): (u8, _)| Effect { sense: Some(sense), ..Effect::status(status) };
    prop_oneof![
        3 => sense.clone().prop_map(Effect::sense),
        1 => (prop_oneof![Just(0), status.clone()], sense.clone()).prop_map(beside),
        3 => status.prop_map(Effect::status),
        3 => response.prop_map(Effect::response),
        1 => (response_of_failure(), sense).prop_map(|(response, sense)| Effect {
            sense: Some(sense),
            ..Effect::response(response)
        }),
    ]
}

/// Responses with which the host never sends a command again.
fn response_of_failure() -> impl Strategy<Value = u8> {
    select(vec![2, 3, 7])
}
