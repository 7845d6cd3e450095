//! Fixed and descriptor format sense data.

use super::{FieldPointer, Sense, SenseFormat, SenseKey, SenseKeySpecific};

/// Longest sense data in bytes: 8 and the largest ADDITIONAL SENSE LENGTH SPC allows, 244.
pub const SENSE_LEN_MAX: usize = 252;

/// Length of fixed format sense data up to and with SENSE KEY SPECIFIC.
const FIXED_LEN: usize = 18;
/// Bytes before the descriptors, and before ADDITIONAL SENSE LENGTH counts.
const HEADER_LEN: usize = 8;

const VALID: u8 = 0x80;
const SKSV: u8 = 0x80;
const COMMAND_DATA: u8 = 0x40;
const BIT_POINTER_VALID: u8 = 0x08;

const INFORMATION: u8 = 0x00;
const COMMAND_SPECIFIC: u8 = 0x01;
const KEY_SPECIFIC: u8 = 0x02;

/// Why bytes are no sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenseError {
    /// Too short to hold key, ASC and ASCQ.
    #[error("{0} bytes are too short for sense data")]
    TooShort(usize),
    /// RESPONSE CODE is none of 70h to 73h.
    #[error("response code {0:02x}h is no sense data of a known format")]
    ResponseCode(u8),
    /// A descriptor reaches beyond the end or contradicts its type.
    #[error("sense descriptor at byte {0} is malformed")]
    Descriptor(usize),
}

impl Sense {
    /// As bytes: 18 in fixed format, 8 and its descriptors in descriptor format.
    #[must_use]
    pub fn encode(&self, format: SenseFormat) -> Vec<u8> {
        match format {
            SenseFormat::Fixed => self.encode_fixed().to_vec(),
            SenseFormat::Descriptor => self.encode_descriptors(),
        }
    }

    fn encode_fixed(&self) -> [u8; FIXED_LEN] {
        let mut bytes = [0; FIXED_LEN];
        bytes[0] = 0x70 | u8::from(self.deferred);
        bytes[2] = self.key.code();
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= VALID;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = 10; // ADDITIONAL SENSE LENGTH: 18 - 8
        if let Some(specific) = self.command_specific.and_then(|value| u32::try_from(value).ok()) {
            bytes[8..12].copy_from_slice(&specific.to_be_bytes());
        }
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        if let Some(specific) = self.specific {
            bytes[15..18].copy_from_slice(&encode_specific(specific));
        }
        bytes
    }

    fn encode_descriptors(&self) -> Vec<u8> {
        let response_code = 0x72 | u8::from(self.deferred);
        let mut bytes = vec![response_code, self.key.code(), self.asc, self.ascq, 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend_from_slice(&[INFORMATION, 0x0a, VALID, 0]);
            bytes.extend_from_slice(&information.to_be_bytes());
        }
        if let Some(specific) = self.command_specific {
            bytes.extend_from_slice(&[COMMAND_SPECIFIC, 0x0a, 0, 0]);
            bytes.extend_from_slice(&specific.to_be_bytes());
        }
        if let Some(specific) = self.specific {
            let [first, second, third] = encode_specific(specific);
            bytes.extend_from_slice(&[KEY_SPECIFIC, 0x06, 0, 0, first, second, third, 0]);
        }
        bytes[7] = u8::try_from(bytes.len() - HEADER_LEN).expect("at most three descriptors");
        bytes
    }

    /// Reads either format. Bytes behind ADDITIONAL SENSE LENGTH are not looked at; fields that were
    /// cut off are absent.
    ///
    /// # Errors
    /// The bytes are no sense data.
    pub fn decode(bytes: &[u8]) -> Result<Sense, SenseError> {
        let response_code = bytes.first().ok_or(SenseError::TooShort(0))? & 0x7f;
        let mut sense = match response_code {
            0x70 | 0x71 => decode_fixed(bytes)?,
            0x72 | 0x73 => decode_descriptors(bytes)?,
            other => return Err(SenseError::ResponseCode(other)),
        };
        sense.deferred = response_code & 1 != 0;
        Ok(sense)
    }
}

fn decode_fixed(bytes: &[u8]) -> Result<Sense, SenseError> {
    let end = bytes
        .get(7)
        .map_or(bytes.len(), |additional| bytes.len().min(HEADER_LEN + usize::from(*additional)));
    let bytes = &bytes[..end];
    let (Some(asc), Some(ascq)) = (bytes.get(12), bytes.get(13)) else {
        return Err(SenseError::TooShort(bytes.len()));
    };
    let mut sense = Sense::new(SenseKey::from_bits(bytes[2]), *asc, *ascq);
    if bytes[0] & VALID != 0 {
        sense.information = Some(be32(&bytes[3..7]));
    }
    sense.command_specific = Some(be32(&bytes[8..12])).filter(|value| *value != 0);
    if let Some(&[first, second, third]) = bytes.get(15..18) {
        sense.specific = decode_specific(sense.key, [first, second, third]);
    }
    Ok(sense)
}

fn decode_descriptors(bytes: &[u8]) -> Result<Sense, SenseError> {
    let Some((&[_, key, asc, ascq, _, _, _, additional], rest)) =
        bytes.split_first_chunk::<HEADER_LEN>()
    else {
        return Err(SenseError::TooShort(bytes.len()));
    };
    let mut sense = Sense::new(SenseKey::from_bits(key), asc, ascq);
    let cut = rest.len() < additional.into();
    let mut rest = &rest[..rest.len().min(additional.into())];
    let mut at = HEADER_LEN;
    while let [kind, len, tail @ ..] = rest {
        let Some(body) = tail.get(..usize::from(*len)) else {
            return if cut { Ok(sense) } else { Err(SenseError::Descriptor(at)) };
        };
        decode_descriptor(&mut sense, *kind, body).ok_or(SenseError::Descriptor(at))?;
        rest = &tail[body.len()..];
        at += 2 + body.len();
    }
    if rest.is_empty() || cut { Ok(sense) } else { Err(SenseError::Descriptor(at)) }
}

/// Takes over what a descriptor says; `None` if it is too short for its type. Unknown types are
/// passed over.
fn decode_descriptor(sense: &mut Sense, kind: u8, body: &[u8]) -> Option<()> {
    match kind {
        INFORMATION => {
            let value = be64(body.get(2..10)?);
            sense.information = (body[0] & VALID != 0).then_some(value);
        }
        COMMAND_SPECIFIC => sense.command_specific = Some(be64(body.get(2..10)?)),
        KEY_SPECIFIC => {
            let &[first, second, third] = body.get(2..5)? else { return None };
            sense.specific = decode_specific(sense.key, [first, second, third]);
        }
        _ => {}
    }
    Some(())
}

fn encode_specific(specific: SenseKeySpecific) -> [u8; 3] {
    match specific {
        SenseKeySpecific::FieldPointer(pointer) => {
            let [high, low] = pointer.byte.to_be_bytes();
            let place = if pointer.in_cdb { COMMAND_DATA } else { 0 };
            let bit = pointer.bit.map_or(0, |bit| BIT_POINTER_VALID | bit & 7);
            [SKSV | place | bit, high, low]
        }
        SenseKeySpecific::Progress(value) | SenseKeySpecific::RetryCount(value) => {
            let [high, low] = value.to_be_bytes();
            [SKSV, high, low]
        }
        SenseKeySpecific::Other([first, second, third]) => [SKSV | first, second, third],
    }
}

fn decode_specific(key: SenseKey, bytes: [u8; 3]) -> Option<SenseKeySpecific> {
    let [first, second, third] = bytes;
    if first & SKSV == 0 {
        return None;
    }
    let value = u16::from_be_bytes([second, third]);
    Some(match key {
        SenseKey::IllegalRequest => SenseKeySpecific::FieldPointer(FieldPointer {
            in_cdb: first & COMMAND_DATA != 0,
            byte: value,
            bit: (first & BIT_POINTER_VALID != 0).then_some(first & 7),
        }),
        SenseKey::NoSense | SenseKey::NotReady => SenseKeySpecific::Progress(value),
        SenseKey::RecoveredError | SenseKey::MediumError | SenseKey::HardwareError => {
            SenseKeySpecific::RetryCount(value)
        }
        _ => SenseKeySpecific::Other([first & !SKSV, second, third]),
    })
}

/// The big-endian value of at most eight bytes.
fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn be32(bytes: &[u8]) -> u64 {
    be64(&bytes[..4])
}
