//! An initiator's view of the unit: commands by name, and what is to come of them.

use crate::{Completion, Transport, Unit};

/// An initiator with a nexus to the unit of a law.
#[derive(Clone, Copy)]
pub struct Initiator<'a> {
    transport: &'a dyn Transport,
    nexus: usize,
    unit: Unit,
}

impl std::fmt::Debug for Initiator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nexus {}", self.nexus)
    }
}

/// How a command ended, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// GOOD.
    Good,
    /// CHECK CONDITION with this sense key, ASC and ASCQ.
    Check(u8, u8, u8),
    /// Another status.
    Status(u8),
}

/// SAM: CHECK CONDITION.
const CHECK_CONDITION: u8 = 0x02;

/// RESERVATION CONFLICT (SAM).
pub(crate) const CONFLICT: Ended = Ended::Status(0x18);

impl Completion {
    /// In short.
    #[must_use]
    pub fn ended(&self) -> Ended {
        match (self.status, &self.sense[..]) {
            (0, _) => Ended::Good,
            // Fixed format: key in byte 2, ASC and ASCQ in bytes 12 and 13.
            (CHECK_CONDITION, [0x70 | 0xf0, _, key, _, _, _, _, _, _, _, _, _, asc, ascq, ..]) => {
                Ended::Check(key & 0xf, *asc, *ascq)
            }
            (CHECK_CONDITION, [0x72, key, asc, ascq, ..]) => Ended::Check(key & 0xf, *asc, *ascq),
            (status, _) => Ended::Status(status),
        }
    }

    /// INFORMATION of fixed format sense data, if VALID.
    #[must_use]
    pub fn information(&self) -> Option<u32> {
        let bytes = self.sense.get(3..7)?;
        (self.sense[0] == 0xf0).then(|| u32::from_be_bytes(bytes.try_into().expect("four bytes")))
    }

    /// The three bytes of SENSE KEY SPECIFIC of fixed format sense data.
    #[must_use]
    pub fn specific(&self) -> [u8; 3] {
        self.sense.get(15..18).map_or([0; 3], |bytes| bytes.try_into().expect("three bytes"))
    }
}

impl<'a> Initiator<'a> {
    pub(crate) fn new(transport: &'a dyn Transport, nexus: usize, unit: Unit) -> Self {
        Initiator { transport, nexus, unit }
    }

    /// Length of a block.
    pub(crate) fn block_len(&self) -> usize {
        usize::try_from(self.unit.block_len).expect("small")
    }

    /// A command without data.
    pub(crate) fn run(&self, cdb: &[u8]) -> Completion {
        self.transport.execute(self.nexus, cdb, &[], 0)
    }

    /// A command that takes data.
    pub(crate) fn send(&self, cdb: &[u8], data: &[u8]) -> Completion {
        self.transport.execute(self.nexus, cdb, data, 0)
    }

    /// A command that returns data, with room for `len` bytes.
    pub(crate) fn ask(&self, cdb: &[u8], len: usize) -> Completion {
        self.transport.execute(self.nexus, cdb, &[], len)
    }

    /// What a command returns that must succeed.
    #[track_caller]
    pub(crate) fn receive(&self, cdb: &[u8]) -> Vec<u8> {
        let completion = self.ask(cdb, 4096);
        self.expect(&completion, cdb, Ended::Good);
        completion.data
    }

    #[track_caller]
    fn expect(&self, completion: &Completion, cdb: &[u8], expected: Ended) {
        let sense = &completion.sense;
        assert_eq!(completion.ended(), expected, "{self:?}, {cdb:02x?}, sense {sense:02x?}");
    }

    /// A command without data that must end like this.
    #[track_caller]
    pub(crate) fn run_expecting(&self, cdb: &[u8], expected: Ended) -> Completion {
        let completion = self.run(cdb);
        self.expect(&completion, cdb, expected);
        completion
    }

    /// A command without data that must succeed.
    #[track_caller]
    pub(crate) fn good(&self, cdb: &[u8]) {
        self.run_expecting(cdb, Ended::Good);
    }

    /// A command with data that must end like this.
    #[track_caller]
    pub(crate) fn send_expecting(&self, cdb: &[u8], data: &[u8], expected: Ended) -> Completion {
        let completion = self.send(cdb, data);
        self.expect(&completion, cdb, expected);
        completion
    }

    /// A command with data that must succeed and take all of it.
    #[track_caller]
    pub(crate) fn good_send(&self, cdb: &[u8], data: &[u8]) {
        let completion = self.send_expecting(cdb, data, Ended::Good);
        assert_eq!(completion.residual, 0, "{self:?}, {cdb:02x?}");
    }

    /// A command that returns data must end like this instead.
    #[track_caller]
    pub(crate) fn ask_expecting(&self, cdb: &[u8], expected: Ended) -> Completion {
        let completion = self.ask(cdb, 4096);
        self.expect(&completion, cdb, expected);
        completion
    }

    /// TEST UNIT READY must end like this.
    #[track_caller]
    pub(crate) fn test_unit_ready(&self, expected: Ended) -> Completion {
        self.run_expecting(&[0; 6], expected)
    }

    /// LOGICAL UNIT RESET.
    pub(crate) fn reset(&self) {
        self.transport.logical_unit_reset(self.nexus);
    }

    /// Writes blocks that are each filled with one byte, with WRITE(10).
    #[track_caller]
    pub(crate) fn write(&self, lba: u8, fill: &[u8]) {
        self.write_expecting(lba, fill, Ended::Good);
    }

    /// As [`Self::write`], ending like this.
    #[track_caller]
    pub(crate) fn write_expecting(&self, lba: u8, fill: &[u8], expected: Ended) {
        let blocks = u8::try_from(fill.len()).expect("few");
        let cdb = [0x2a, 0, 0, 0, 0, lba, 0, 0, blocks, 0];
        self.send_expecting(&cdb, &self.filled(fill), expected);
    }

    /// Blocks that are each filled with one byte.
    pub(crate) fn filled(&self, fill: &[u8]) -> Vec<u8> {
        fill.iter().flat_map(|byte| vec![*byte; self.block_len()]).collect()
    }

    /// Reads blocks that are each filled with one byte, with READ(10), and returns those bytes.
    #[track_caller]
    pub(crate) fn read(&self, lba: u8, blocks: u8) -> Vec<u8> {
        let cdb = [0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0];
        let completion = self.ask(&cdb, usize::from(blocks) * self.block_len());
        self.expect(&completion, &cdb, Ended::Good);
        assert_eq!(completion.residual, 0);
        let fill = |block: &[u8]| {
            assert!(block.iter().all(|byte| *byte == block[0]), "a block is not of one byte");
            block[0]
        };
        completion.data.chunks(self.block_len()).map(fill).collect()
    }
}
