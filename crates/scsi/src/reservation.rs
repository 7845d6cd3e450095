//! Parameter data of PERSISTENT RESERVE IN and PERSISTENT RESERVE OUT (SPC).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{U16, U32, U64},
};

/// TYPE of a persistent reservation. Its scope is the logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReservationType {
    /// Write Exclusive.
    WriteExclusive = 0x1,
    /// Exclusive Access.
    ExclusiveAccess = 0x3,
    /// Write Exclusive - Registrants Only.
    WriteExclusiveRegistrantsOnly = 0x5,
    /// Exclusive Access - Registrants Only.
    ExclusiveAccessRegistrantsOnly = 0x6,
    /// Write Exclusive - All Registrants.
    WriteExclusiveAllRegistrants = 0x7,
    /// Exclusive Access - All Registrants.
    ExclusiveAccessAllRegistrants = 0x8,
}

impl ReservationType {
    /// Every type, in order of code.
    pub const ALL: [ReservationType; 6] = [
        ReservationType::WriteExclusive,
        ReservationType::ExclusiveAccess,
        ReservationType::WriteExclusiveRegistrantsOnly,
        ReservationType::ExclusiveAccessRegistrantsOnly,
        ReservationType::WriteExclusiveAllRegistrants,
        ReservationType::ExclusiveAccessAllRegistrants,
    ];

    /// The type with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.code() == code)
    }

    /// TYPE.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it keeps others from reading, too.
    #[must_use]
    pub const fn is_exclusive_access(self) -> bool {
        matches!(
            self,
            ReservationType::ExclusiveAccess
                | ReservationType::ExclusiveAccessRegistrantsOnly
                | ReservationType::ExclusiveAccessAllRegistrants
        )
    }

    /// Whether every registered nexus may do what the holder may.
    #[must_use]
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, ReservationType::WriteExclusive | ReservationType::ExclusiveAccess)
    }

    /// Whether every registered nexus is a holder.
    #[must_use]
    pub const fn is_all_registrants(self) -> bool {
        matches!(
            self,
            ReservationType::WriteExclusiveAllRegistrants
                | ReservationType::ExclusiveAccessAllRegistrants
        )
    }
}

/// PERSISTENT RESERVE OUT parameter list.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReserveOutList {
    /// RESERVATION KEY.
    pub key: U64,
    /// SERVICE ACTION RESERVATION KEY.
    pub service_action_key: U64,
    obsolete: [u8; 4],
    /// SPEC_I_PT in bit 3, ALL_TG_PT in bit 2, APTPL in bit 0.
    pub flags: u8,
    reserved: u8,
    obsolete_22: [u8; 2],
}

/// Length of the parameter list, which has nothing behind it without SPEC_I_PT.
pub const RESERVE_OUT_LIST_LEN: u32 = 24;
const _: () = assert!(size_of::<ReserveOutList>() == RESERVE_OUT_LIST_LEN as usize);

/// The flags of the parameter list, from the left.
pub const RESERVE_OUT_FLAG_BITS: [u8; 3] = [3, 2, 0];

/// READ KEYS parameter data.
#[must_use]
pub fn keys_data(generation: u32, keys: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let body: Vec<u8> = keys.into_iter().flat_map(u64::to_be_bytes).collect();
    with_header(generation, &body)
}

/// Reservation descriptor of READ RESERVATION.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReservationDescriptor {
    /// RESERVATION KEY of the holder; zero if all registrants are.
    pub key: U64,
    obsolete: [u8; 4],
    reserved: u8,
    /// SCOPE in bits 7 to 4, TYPE below.
    pub scope_type: u8,
    obsolete_14: [u8; 2],
}
const _: () = assert!(size_of::<ReservationDescriptor>() == 16);

/// READ RESERVATION parameter data: the holder's key and the type, if there is a reservation.
#[must_use]
pub fn reservation_data(generation: u32, reservation: Option<(u64, ReservationType)>) -> Vec<u8> {
    let descriptor = reservation.map(|(key, kind)| ReservationDescriptor {
        key: key.into(),
        obsolete: [0; 4],
        reserved: 0,
        scope_type: kind.code(),
        obsolete_14: [0; 2],
    });
    with_header(generation, descriptor.as_ref().map_or(&[], |each| each.as_bytes()))
}

/// REPORT CAPABILITIES parameter data: LENGTH, no capability (CRH, SIP_C, ATP_C, PTPL_C), TMV with the
/// mask of all types.
#[must_use]
pub fn capabilities_data() -> [u8; 8] {
    const TYPE_MASK_VALID: u8 = 0x80;
    // Types 0 to 7 are bits of byte 4, type 8 is the first of byte 5.
    let mask = ReservationType::ALL.iter().fold(0u16, |mask, kind| mask | 1 << kind.code());
    let [high, low] = mask.to_be_bytes();
    [0, 8, 0, TYPE_MASK_VALID, low, high, 0, 0]
}

/// A registration as READ FULL STATUS tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Registrant {
    /// RESERVATION KEY.
    pub key: u64,
    /// R_HOLDER with SCOPE and TYPE: it holds the reservation.
    pub holds: Option<ReservationType>,
    /// Name of the initiator port, an NAA designator.
    pub initiator_port: u64,
}

/// Full status descriptor, up to its TransportID.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FullStatusDescriptor {
    /// RESERVATION KEY.
    pub key: U64,
    reserved: [u8; 4],
    /// ALL_TG_PT in bit 1, R_HOLDER in bit 0.
    pub flags: u8,
    /// SCOPE in bits 7 to 4, TYPE below.
    pub scope_type: u8,
    reserved_14: [u8; 4],
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub target_port: U16,
    /// ADDITIONAL DESCRIPTOR LENGTH in bytes.
    pub additional_length: U32,
}
const _: () = assert!(size_of::<FullStatusDescriptor>() == 24);

/// Length of a TransportID.
const TRANSPORT_ID_LEN: usize = 24;
/// PROTOCOL IDENTIFIER of SAS, whose ports have NAA names; there is none for our transport.
const PROTOCOL_SAS: u8 = 0x6;
/// R_HOLDER.
const HOLDER: u8 = 0x01;

/// READ FULL STATUS parameter data. There is one target port, 0001h.
#[must_use]
pub fn full_status_data(
    generation: u32,
    registrants: impl IntoIterator<Item = Registrant>,
) -> Vec<u8> {
    let mut body = Vec::new();
    for registrant in registrants {
        let descriptor = FullStatusDescriptor {
            key: registrant.key.into(),
            reserved: [0; 4],
            flags: if registrant.holds.is_some() { HOLDER } else { 0 },
            scope_type: registrant.holds.map_or(0, ReservationType::code),
            reserved_14: [0; 4],
            target_port: 1.into(),
            additional_length: u32::try_from(TRANSPORT_ID_LEN).expect("small").into(),
        };
        let mut transport_id = [0; TRANSPORT_ID_LEN];
        transport_id[0] = PROTOCOL_SAS;
        transport_id[4..12].copy_from_slice(&registrant.initiator_port.to_be_bytes());
        body.extend_from_slice(descriptor.as_bytes());
        body.extend_from_slice(&transport_id);
    }
    with_header(generation, &body)
}

/// PRGENERATION, ADDITIONAL LENGTH, and what that counts.
fn with_header(generation: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("few registrations");
    [&generation.to_be_bytes()[..], &len.to_be_bytes(), body].concat()
}
