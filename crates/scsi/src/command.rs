//! The table of commands, and what follows from it: names, lookup, CDB lengths, reserved bits.

use crate::{cdb::START, sense::FieldPointer};

/// Where the data of a command goes, as the initiator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataDirection {
    /// No data.
    None,
    /// To the initiator.
    In,
    /// From the initiator.
    Out,
}

/// The standard that defines a command, in its clause "*name* command".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standard {
    /// SCSI Primary Commands, SPC-4.
    Spc,
    /// SCSI Primary Commands, SPC-2: obsolete since.
    Spc2,
    /// SCSI Block Commands, SBC-3.
    Sbc,
}

/// What a command wants of the logical unit before it is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing: it is processed by a unit that is not ready, too.
    Any,
    /// The unit is ready.
    Ready,
    /// The unit is ready, and not write protected.
    Write,
}

/// Which reservations of others a command conflicts with: the columns of the tables "commands that are
/// allowed in the presence of various reservations" (SPC-2 and SBC in its annex for RESERVE, SPC and
/// SBC for persistent reservations). All but [`Conflict::Never`] conflict with RESERVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// None.
    Never,
    /// Only RESERVE.
    Reserve,
    /// Exclusive Access: it is allowed where others may read.
    Exclusive,
    /// Write Exclusive and Exclusive Access.
    All,
    /// It depends: on START of START STOP UNIT, and on more than a table can say for RESERVE and
    /// RELEASE.
    Field,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// Which command.
    pub command: Command,
    /// Its name exactly as the standard writes it.
    pub name: &'static str,
    /// Where it is defined.
    pub standard: Standard,
    /// Where its data goes.
    pub direction: DataDirection,
    /// What it wants of the unit.
    pub access: Access,
    /// Which reservations of others it conflicts with.
    pub conflict: Conflict,
    /// SERVICE ACTION, if the operation code has service actions.
    pub service_action: Option<u16>,
    /// Byte 0 is the operation code; in the others, the bits that are evaluated. Bits of a SERVICE
    /// ACTION field are not among them. As long as the CDB.
    pub usage: &'static [u8],
    /// Fields of more than one bit that the standard defines and that are not evaluated, as byte and
    /// bits: a field pointer names a field's first bit.
    pub unsupported: &'static [(u8, u8)],
}

/// RDPROTECT or WRPROTECT in byte 1.
const PROTECT: (u8, u8) = (1, 0xe0);

macro_rules! commands {
    ($($variant:ident $name:literal $standard:ident $direction:ident $access:ident $conflict:ident $service_action:expr,
       [$($usage:literal),+] $unsupported:expr;)+) => {
        /// A command of the table, in order of operation code and service action.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Command {
            $(#[doc = $name] $variant,)+
        }

        impl Command {
            /// Every command, in order of operation code and service action.
            pub const ALL: &'static [Command] = &[$(Command::$variant),+];
        }

        static TABLE: &[CommandSpec] = &[$(CommandSpec {
            command: Command::$variant,
            name: $name,
            standard: Standard::$standard,
            direction: DataDirection::$direction,
            access: Access::$access,
            conflict: Conflict::$conflict,
            service_action: $service_action,
            usage: &[$($usage),+],
            unsupported: &$unsupported,
        }),+];
    };
}

// Usage bits are those of CDB USAGE DATA (SPC, REPORT SUPPORTED OPERATION CODES): a bit that is not
// set is reserved, obsolete or not supported, and refused. In CONTROL only NACA is evaluated, and
// refused as well, because NORMACA is zero.
#[rustfmt::skip]
commands! {
//  variant              name                     standard, data, access, conflict, service action; usage; not supported
    TestUnitReady        "TEST UNIT READY"        Spc  None Ready Reserve   None,       [0x00, 0, 0, 0, 0, 0x04] [];
    RequestSense         "REQUEST SENSE"          Spc  In   Any   Never     None,       [0x03, 0x01, 0, 0, 0xff, 0x04] [];
    Read6                "READ(6)"                Sbc  In   Ready Exclusive None,       [0x08, 0x1f, 0xff, 0xff, 0xff, 0x04] [];
    Write6               "WRITE(6)"               Sbc  Out  Write All       None,       [0x0a, 0x1f, 0xff, 0xff, 0xff, 0x04] [];
    Inquiry              "INQUIRY"                Spc  In   Any   Never     None,       [0x12, 0x01, 0xff, 0xff, 0xff, 0x04] [];
    ModeSelect6          "MODE SELECT(6)"         Spc  Out  Any   All       None,       [0x15, 0x10, 0, 0, 0xff, 0x04] [];
    Reserve6             "RESERVE(6)"             Spc2 None Any   Field     None,       [0x16, 0, 0, 0, 0, 0x04] [];
    Release6             "RELEASE(6)"             Spc2 None Any   Field     None,       [0x17, 0, 0, 0, 0, 0x04] [];
    ModeSense6           "MODE SENSE(6)"          Spc  In   Any   Exclusive None,       [0x1a, 0x08, 0xff, 0xff, 0xff, 0x04] [];
    StartStopUnit        "START STOP UNIT"        Sbc  None Any   Field     None,       [0x1b, 0x01, 0, 0, 0x05, 0x04] [(4, 0xf0)];
    ReadCapacity10       "READ CAPACITY(10)"      Sbc  In   Any   Never     None,       [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0x04] [];
    Read10               "READ(10)"               Sbc  In   Ready Exclusive None,       [0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04] [PROTECT, (6, 0x1f)];
    Write10              "WRITE(10)"              Sbc  Out  Write All       None,       [0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04] [PROTECT, (6, 0x1f)];
    Verify10             "VERIFY(10)"             Sbc  Out  Ready Exclusive None,       [0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04] [PROTECT, (6, 0x1f)];
    PreFetch10           "PRE-FETCH(10)"          Sbc  None Ready Exclusive None,       [0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04] [(6, 0x1f)];
    SynchronizeCache10   "SYNCHRONIZE CACHE(10)"  Sbc  None Ready All       None,       [0x35, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04] [(6, 0x1f)];
    WriteBuffer          "WRITE BUFFER"           Spc  Out  Any   All       None,       [0x3b, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    ReadBuffer           "READ BUFFER"            Spc  In   Any   All       None,       [0x3c, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    WriteSame10          "WRITE SAME(10)"         Sbc  Out  Write All       None,       [0x41, 0x08, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04] [PROTECT, (6, 0x1f)];
    Unmap                "UNMAP"                  Sbc  Out  Write All       None,       [0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04] [(6, 0x1f)];
    LogSense             "LOG SENSE"              Spc  In   Any   Never     None,       [0x4d, 0, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    ModeSelect10         "MODE SELECT(10)"        Spc  Out  Any   All       None,       [0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04] [];
    Reserve10            "RESERVE(10)"            Spc2 None Any   Field     None,       [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0x04] [];
    Release10            "RELEASE(10)"            Spc2 None Any   Field     None,       [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0x04] [];
    ModeSense10          "MODE SENSE(10)"         Spc  In   Any   Exclusive None,       [0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04] [];
    PersistentReserveInReadKeys "PERSISTENT RESERVE IN (READ KEYS)" Spc  In   Any   Reserve   Some(0x00), [0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04] [];
    PersistentReserveInReadReservation "PERSISTENT RESERVE IN (READ RESERVATION)" Spc  In   Any   Reserve   Some(0x01), [0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04] [];
    PersistentReserveInReportCapabilities "PERSISTENT RESERVE IN (REPORT CAPABILITIES)" Spc  In   Any   Reserve   Some(0x02), [0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04] [];
    PersistentReserveInReadFullStatus "PERSISTENT RESERVE IN (READ FULL STATUS)" Spc  In   Any   Reserve   Some(0x03), [0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04] [];
    PersistentReserveOutRegister "PERSISTENT RESERVE OUT (REGISTER)" Spc  Out  Any   Reserve   Some(0x00), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    PersistentReserveOutReserve "PERSISTENT RESERVE OUT (RESERVE)" Spc  Out  Any   Reserve   Some(0x01), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    PersistentReserveOutRelease "PERSISTENT RESERVE OUT (RELEASE)" Spc  Out  Any   Reserve   Some(0x02), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    PersistentReserveOutClear "PERSISTENT RESERVE OUT (CLEAR)" Spc  Out  Any   Reserve   Some(0x03), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    PersistentReserveOutPreempt "PERSISTENT RESERVE OUT (PREEMPT)" Spc  Out  Any   Reserve   Some(0x04), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    PersistentReserveOutPreemptAndAbort "PERSISTENT RESERVE OUT (PREEMPT AND ABORT)" Spc  Out  Any   Reserve   Some(0x05), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    PersistentReserveOutRegisterAndIgnoreExistingKey "PERSISTENT RESERVE OUT (REGISTER AND IGNORE EXISTING KEY)" Spc  Out  Any   Reserve   Some(0x06), [0x5f, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04] [];
    Read16               "READ(16)"               Sbc  In   Ready Exclusive None,       [0x88, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [PROTECT, (14, 0x1f)];
    CompareAndWrite      "COMPARE AND WRITE"      Sbc  Out  Write All       None,       [0x89, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0x04] [PROTECT, (14, 0x1f)];
    Write16              "WRITE(16)"              Sbc  Out  Write All       None,       [0x8a, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [PROTECT, (14, 0x1f)];
    Verify16             "VERIFY(16)"             Sbc  Out  Ready Exclusive None,       [0x8f, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [PROTECT, (14, 0x1f)];
    PreFetch16           "PRE-FETCH(16)"          Sbc  None Ready Exclusive None,       [0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [(14, 0x1f)];
    SynchronizeCache16   "SYNCHRONIZE CACHE(16)"  Sbc  None Ready All       None,       [0x91, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [(14, 0x1f)];
    WriteSame16          "WRITE SAME(16)"         Sbc  Out  Write All       None,       [0x93, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [PROTECT, (14, 0x1f)];
    ReadCapacity16       "READ CAPACITY(16)"      Sbc  In   Any   Reserve   Some(0x10), [0x9e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [];
    GetLbaStatus         "GET LBA STATUS"         Sbc  In   Ready Exclusive Some(0x12), [0x9e, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [];
    ReportLuns           "REPORT LUNS"            Spc  In   Any   Never     None,       [0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [];
    ReportSupportedOperationCodes "REPORT SUPPORTED OPERATION CODES" Spc  In   Any   Exclusive Some(0x0c), [0xa3, 0, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [];
    ReportSupportedTaskManagementFunctions "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS" Spc  In   Any   Exclusive Some(0x0d), [0xa3, 0, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [];
    Read12               "READ(12)"               Sbc  In   Ready Exclusive None,       [0xa8, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [PROTECT, (10, 0x1f)];
    Write12              "WRITE(12)"              Sbc  Out  Write All       None,       [0xaa, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04] [PROTECT, (10, 0x1f)];
}

/// Longest CDB of the table, in bytes.
const CDB_LEN_MAX: usize = 16;

/// SERVICE ACTION: bits 4 to 0 of byte 1.
const SERVICE_ACTION_BITS: u8 = 0x1f;

/// NACA in CONTROL (SAM, CONTROL byte).
const NACA: u8 = 0x04;

const NO_ROW: u8 = u8::MAX;

/// First row of each operation code.
static FIRST_ROW: [u8; 256] = first_rows();

#[expect(clippy::cast_possible_truncation, reason = "a row number is asserted to fit")]
const fn first_rows() -> [u8; 256] {
    assert!(TABLE.len() < NO_ROW as usize);
    let mut rows = [NO_ROW; 256];
    let mut row = 0;
    while row < TABLE.len() {
        let spec = &TABLE[row];
        assert!(spec.command as usize == row);
        assert!(group_cdb_len(spec.usage[0]) as usize == spec.usage.len());
        assert!(spec.usage.len() <= CDB_LEN_MAX);
        assert!(spec.usage[spec.usage.len() - 1] == NACA);
        assert!(row == 0 || TABLE[row - 1].usage[0] <= spec.usage[0], "rows out of order");
        let opcode = spec.usage[0] as usize;
        if rows[opcode] == NO_ROW {
            rows[opcode] = row as u8;
        }
        row += 1;
    }
    rows
}

/// Length of a CDB by the GROUP CODE of its operation code (SPC, Fixed length CDBs); 0 for reserved
/// and vendor specific groups and for variable length CDBs.
#[must_use]
pub const fn group_cdb_len(opcode: u8) -> u8 {
    match opcode >> 5 {
        0 => 6,
        1 | 2 => 10,
        4 => 16,
        5 => 12,
        _ => 0,
    }
}

/// What a CDB asks for, when the table has no such command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnknownCommand {
    /// The operation code is not in the table, or there is no byte at all.
    Opcode,
    /// The operation code is, this service action is not.
    ServiceAction,
}

impl Command {
    /// The command of a CDB by operation code and service action. The rest is not looked at.
    #[must_use]
    pub fn lookup(cdb: &[u8]) -> Option<Command> {
        Self::identify(cdb).ok()
    }

    /// As [`Self::lookup`], and tells what is unknown.
    ///
    /// # Errors
    /// The table has no such command.
    pub fn identify(cdb: &[u8]) -> Result<Command, UnknownCommand> {
        let opcode = *cdb.first().ok_or(UnknownCommand::Opcode)?;
        let service_action = cdb.get(1).map_or(0, |byte| u16::from(byte & SERVICE_ACTION_BITS));
        let rows = Self::rows(opcode);
        match rows {
            [] => Err(UnknownCommand::Opcode),
            [CommandSpec { service_action: None, command, .. }, ..] => Ok(*command),
            _ => rows
                .iter()
                .find(|row| row.service_action == Some(service_action))
                .map(|row| row.command)
                .ok_or(UnknownCommand::ServiceAction),
        }
    }

    /// The rows of an operation code: none, one without a service action, or one for each.
    #[must_use]
    pub fn rows(opcode: u8) -> &'static [CommandSpec] {
        match FIRST_ROW[usize::from(opcode)] {
            NO_ROW => &[],
            first => {
                let rows = &TABLE[usize::from(first)..];
                let count = rows.iter().take_while(|row| row.usage[0] == opcode).count();
                &rows[..count]
            }
        }
    }

    /// The row of this command.
    #[must_use]
    pub fn spec(self) -> &'static CommandSpec {
        &TABLE[self as usize]
    }

    /// The name exactly as the standard writes it, for example `READ(10)`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The command with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Command> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.command)
    }

    /// OPERATION CODE.
    #[must_use]
    pub fn opcode(self) -> u8 {
        self.spec().usage[0]
    }

    /// Length of the CDB in bytes.
    #[must_use]
    pub fn cdb_len(self) -> usize {
        self.spec().usage.len()
    }

    /// Which reservations of others this CDB conflicts with. START STOP UNIT conflicts unless it starts
    /// the unit; RESERVE and RELEASE are their handlers' matter.
    #[must_use]
    pub fn conflict(self, cdb: &[u8]) -> Conflict {
        match (self.spec().conflict, self) {
            (Conflict::Field, Command::StartStopUnit) => match cdb.get(4) {
                Some(byte) if byte & START != 0 => Conflict::Never,
                _ => Conflict::All,
            },
            (Conflict::Field, _) => Conflict::Never,
            (conflict, _) => conflict,
        }
    }

    /// Where the data goes.
    #[must_use]
    pub fn direction(self) -> DataDirection {
        self.spec().direction
    }
}

impl CommandSpec {
    /// Whether it is about the blocks of a unit, and not only about the unit.
    #[must_use]
    pub fn reaches_medium(&self) -> bool {
        self.standard == Standard::Sbc && self.access != Access::Any
    }

    /// CDB USAGE DATA (SPC, REPORT SUPPORTED OPERATION CODES, one_command parameter data): the
    /// operation code, the service action if there is one, and the evaluated bits.
    #[must_use]
    pub fn usage_data(&self) -> Vec<u8> {
        let mut usage = self.usage.to_vec();
        if let Some([_, service_action]) = self.service_action.map(u16::to_be_bytes) {
            usage[1] |= service_action;
        }
        usage
    }

    /// The first field of a CDB that is not as this command wants it: a set bit that is not
    /// evaluated, or NACA.
    ///
    /// # Errors
    /// Where the field is. A CDB that is too short points to the first byte it lacks.
    pub fn check(&self, cdb: &[u8]) -> Result<(), FieldPointer> {
        let Some(cdb) = cdb.get(..self.usage.len()) else {
            return Err(FieldPointer::cdb_byte(u16::try_from(cdb.len()).unwrap_or(u16::MAX)));
        };
        let mut refused = 0;
        for (index, (byte, usage)) in cdb.iter().zip(self.usage).enumerate() {
            let accepted = match index {
                0 => u8::MAX,
                1 if self.service_action.is_some() => usage | SERVICE_ACTION_BITS,
                _ if index == self.usage.len() - 1 => usage & !NACA,
                _ => *usage,
            };
            refused = refused << 8 | u128::from(byte & !accepted);
        }
        match refused {
            0 => Ok(()),
            _ => Err(self.point(refused << (8 * (CDB_LEN_MAX - self.usage.len())))),
        }
    }

    /// The field of the first bit set in `refused`, which holds byte 0 in its uppermost bits.
    fn point(&self, refused: u128) -> FieldPointer {
        let first = refused.leading_zeros();
        let byte = u8::try_from(first / 8).expect("a CDB has at most 16 bytes");
        let bit = 7 - u8::try_from(first % 8).expect("below 8");
        let field = self
            .unsupported
            .iter()
            .find(|(at, mask)| *at == byte && mask & 1 << bit != 0)
            .map_or(bit, |(_, mask)| 7 - u8::try_from(mask.leading_zeros()).expect("below 8"));
        FieldPointer::cdb_bit(byte.into(), field)
    }
}
