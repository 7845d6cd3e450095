//! Logical unit numbers (SAM, Logical unit numbers) and the address a transport makes of them.

/// Highest LUN the flat space addressing method can name: 14 bits.
pub const LUN_MAX: u16 = 0x3fff;

/// Length in bytes of a LUN structure.
pub const LUN_LEN: usize = 8;

/// ADDRESS METHOD 01b, flat space addressing, in the two upper bits of the first byte.
const FLAT_SPACE: u8 = 0x40;

/// A logical unit of a device: which target, which logical unit of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LunAddress {
    /// Target, 0 to 255.
    pub target: u8,
    /// Logical unit number, 0 to [`LUN_MAX`].
    pub lun: u16,
}

impl LunAddress {
    /// Reads virtio-scsi's 8-byte `lun` field (virtio 1.2, 5.6.6.1): 1, the target, a single-level
    /// LUN structure of two bytes, four zeros. `None` if the field has another form.
    #[must_use]
    pub fn from_virtio(field: &[u8; LUN_LEN]) -> Option<LunAddress> {
        let [1, target, high, low, 0, 0, 0, 0] = *field else { return None };
        let lun = decode_level([high, low])?;
        Some(LunAddress { target, lun })
    }

    /// The field [`Self::from_virtio`] reads, as Linux writes it: flat space addressing throughout.
    #[must_use]
    pub fn to_virtio(self) -> [u8; LUN_LEN] {
        let [high, low] = (self.lun & LUN_MAX).to_be_bytes();
        [1, self.target, FLAT_SPACE | high, low, 0, 0, 0, 0]
    }
}

impl LunAddress {
    /// The field as an event has it: the LUN as REPORT LUNS tells it, because Linux takes it for that and
    /// does not look for an address method (drivers/scsi/virtio_scsi.c:virtscsi_handle_transport_reset).
    #[must_use]
    pub fn to_virtio_event(self) -> [u8; LUN_LEN] {
        let [high, low, ..] = encode_single_level(self.lun);
        [1, self.target, high, low, 0, 0, 0, 0]
    }
}

/// The single-level LUN structure of a LUN, as REPORT LUNS tells it: peripheral device addressing up
/// to 255, flat space addressing above.
#[must_use]
pub fn encode_single_level(lun: u16) -> [u8; LUN_LEN] {
    let [high, low] = (lun & LUN_MAX).to_be_bytes();
    let method = if high == 0 { 0 } else { FLAT_SPACE };
    [method | high, low, 0, 0, 0, 0, 0, 0]
}

/// The LUN of a single-level LUN structure; `None` for several levels, other addressing methods, or
/// a bus other than 0.
#[must_use]
pub fn decode_single_level(field: &[u8; LUN_LEN]) -> Option<u16> {
    match *field {
        [high, low, 0, 0, 0, 0, 0, 0] => decode_level([high, low]),
        _ => None,
    }
}

/// REPORT LUNS parameter data (SPC, REPORT LUNS command): LUN LIST LENGTH in bytes, four reserved
/// bytes, then a LUN structure for each of `luns`, at most 16384.
#[must_use]
pub fn report_luns_data(luns: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut data = vec![0; 8];
    for lun in luns {
        data.extend_from_slice(&encode_single_level(lun));
    }
    let len = u32::try_from(data.len() - 8).expect("at most 16384 LUN structures");
    data[..4].copy_from_slice(&len.to_be_bytes());
    data
}

fn decode_level([high, low]: [u8; 2]) -> Option<u16> {
    match high & 0xc0 {
        0 if high == 0 => Some(low.into()),
        FLAT_SPACE => Some(u16::from_be_bytes([high & 0x3f, low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_lun_is_one_target_and_a_flat_space_lun() {
        let address = LunAddress { target: 7, lun: 0x0123 };
        assert_eq!(address.to_virtio(), [1, 7, 0x41, 0x23, 0, 0, 0, 0]);
        assert_eq!(LunAddress::from_virtio(&[1, 7, 0x41, 0x23, 0, 0, 0, 0]), Some(address));
    }

    #[test]
    fn virtio_lun_takes_peripheral_addressing_too() {
        let address = LunAddress { target: 2, lun: 3 };
        assert_eq!(LunAddress::from_virtio(&[1, 2, 0, 3, 0, 0, 0, 0]), Some(address));
        assert_eq!(LunAddress::from_virtio(&[1, 2, 0x40, 3, 0, 0, 0, 0]), Some(address));
    }

    #[test]
    fn virtio_lun_of_another_form_is_refused() {
        for field in [
            [0, 0, 0x40, 0, 0, 0, 0, 0],
            [1, 0, 0x01, 0, 0, 0, 0, 0], // bus 1
            [1, 0, 0x80, 0, 0, 0, 0, 0], // logical unit addressing
            [1, 0, 0xc1, 0, 0, 0, 0, 0], // extended: a well known logical unit
            [1, 0, 0x40, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(LunAddress::from_virtio(&field), None, "{field:02x?}");
        }
    }

    #[test]
    fn report_luns_data_counts_bytes() {
        let data = report_luns_data([0, 256]);
        assert_eq!(data[..8], [0, 0, 0, 16, 0, 0, 0, 0]);
        assert_eq!(data[8..16], [0; 8]);
        assert_eq!(data[16..], [0x41, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn single_level_luns_change_method_at_256() {
        assert_eq!(encode_single_level(0), [0; 8]);
        assert_eq!(encode_single_level(255), [0, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode_single_level(256), [0x41, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode_single_level(16383), [0x7f, 0xff, 0, 0, 0, 0, 0, 0]);
        for lun in 0..=LUN_MAX {
            assert_eq!(decode_single_level(&encode_single_level(lun)), Some(lun));
        }
        assert_eq!(decode_single_level(&[0, 0, 1, 0, 0, 0, 0, 0]), None);
    }
}
