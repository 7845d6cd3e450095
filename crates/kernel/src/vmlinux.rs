//! The uncompressed kernel inside a bzImage.
//!
//! QEMU enters an ELF `vmlinux` directly (PVH), which under emulation saves the guest the time of
//! decompressing itself. Where the payload lies is told by the setup header (Linux x86 boot
//! protocol 2.08 and newer, Documentation/arch/x86/boot.rst); nothing is searched for.

use object::{
    LittleEndian,
    elf::{FileHeader64, NoteType, PT_NOTE},
    read::elf::{FileHeader, ProgramHeader},
};

use super::compression::Format;

/// Boot sector: number of 512-byte sectors of the setup code, zero meaning four (`setup_sects`).
const SETUP_SECTS: usize = 0x1f1;
/// `HdrS` (`header`).
const HEADER: usize = 0x202;
/// Boot protocol version, u16 (`version`).
const VERSION: usize = 0x206;
/// Offset of the payload from the start of the protected-mode code, u32 (`payload_offset`).
const PAYLOAD_OFFSET: usize = 0x248;
/// Length of the payload, u32 (`payload_length`).
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol version with a payload field.
const FIRST_WITH_PAYLOAD: u16 = 0x0208;

/// Type of the ELF note, owner `Xen`, that holds the PVH entry point
/// (`XEN_ELFNOTE_PHYS32_ENTRY` in Xen's public/elfnote.h).
const PHYS32_ENTRY: NoteType = NoteType(18);

/// Why a kernel image cannot be booted directly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No setup header, or one too old.
    #[error("not an x86 bzImage ({0}); give a bzImage or an ELF vmlinux")]
    NotBzImage(&'static str),
    /// The payload's compression is not one we can undo.
    #[error(
        "the kernel is compressed with {0}, which is not supported; build it with \
         CONFIG_KERNEL_ZSTD=y (or GZIP, XZ, LZ4)"
    )]
    Compression(&'static str),
    /// The payload does not decompress.
    #[error("the compressed kernel is damaged ({0}); remove it from the cache and fetch it again")]
    Damaged(String),
    /// What came out is not an ELF file for x86-64.
    #[error("the kernel's payload is not an x86-64 ELF file ({0})")]
    NotElf(String),
    /// The kernel cannot be entered by PVH.
    #[error("the kernel has no PVH entry point; build it with CONFIG_PVH=y")]
    NoPvh,
}

/// The ELF kernel in `image`, which is a bzImage or that ELF file itself. It has a PVH entry.
pub fn extract(image: &[u8]) -> Result<Vec<u8>, Error> {
    let elf =
        if image.starts_with(b"\x7fELF") { image.to_vec() } else { decompress(payload(image)?)? };
    if has_pvh_entry(&elf)? { Ok(elf) } else { Err(Error::NoPvh) }
}

/// The compressed payload of a bzImage.
fn payload(image: &[u8]) -> Result<&[u8], Error> {
    if image.get(HEADER..HEADER + 4) != Some(b"HdrS") {
        return Err(Error::NotBzImage("no setup header"));
    }
    let version = image.get(VERSION..VERSION + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if version.is_none_or(|version| version < FIRST_WITH_PAYLOAD) {
        return Err(Error::NotBzImage("boot protocol older than 2.08"));
    }
    let setup_sectors = match image[SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let word = |offset| {
        let bytes: [u8; 4] = image.get(offset..offset + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let offset = word(PAYLOAD_OFFSET).ok_or(Error::NotBzImage("truncated setup header"))?;
    let length = word(PAYLOAD_LENGTH).ok_or(Error::NotBzImage("truncated setup header"))?;
    let start = (setup_sectors + 1) * 512 + offset;
    image.get(start..start.saturating_add(length)).ok_or(Error::NotBzImage("truncated payload"))
}

/// Undoes the compression that the payload's first bytes name.
///
/// The kernel's build appends the uncompressed size, 4 bytes little-endian, to every format but
/// gzip, which has it already.
fn decompress(payload: &[u8]) -> Result<Vec<u8>, Error> {
    let size_field = payload.last_chunk::<4>().copied().map_or(0, u32::from_le_bytes);
    let expected = usize::try_from(size_field).unwrap_or(0);
    // The field is not trusted with memory: no kernel is larger than this.
    let mut elf = Vec::with_capacity(expected.min(512 << 20));
    let format = Format::of(payload).map_err(Error::Compression)?;
    let body = match format {
        Format::Gzip => payload,
        Format::Zstd | Format::Xz | Format::Lz4 => &payload[..payload.len().saturating_sub(4)],
    };
    format.undo(body, &mut elf).map_err(Error::Damaged)?;
    if elf.len() == expected {
        Ok(elf)
    } else {
        let detail = format!("{} bytes came out, the image says {expected}", elf.len());
        Err(Error::Damaged(detail))
    }
}

/// Whether an ELF kernel has the note with the PVH entry point.
fn has_pvh_entry(elf: &[u8]) -> Result<bool, Error> {
    let not_elf = |error: object::read::Error| Error::NotElf(error.to_string());
    let header = FileHeader64::<LittleEndian>::parse(elf).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    if header.e_machine(endian) != object::elf::EM_X86_64 {
        return Err(Error::NotElf(format!("machine {}", header.e_machine(endian))));
    }
    for segment in header.program_headers(endian, elf).map_err(not_elf)? {
        if segment.p_type(endian) != PT_NOTE {
            continue;
        }
        let Some(mut notes) = segment.notes(endian, elf).map_err(not_elf)? else { continue };
        while let Some(note) = notes.next().map_err(not_elf)? {
            if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// A 64-bit ELF file with one note segment.
    pub(crate) fn elf(owner: &[u8; 4], kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16] = 2; // e_type ET_EXEC
        file[18] = 62; // e_machine EM_X86_64
        file[20] = 1; // e_version
        file[32] = 64; // e_phoff
        file[52] = 64; // e_ehsize
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        file[64] = 4; // p_type PT_NOTE
        file[64 + 8] = 120; // p_offset
        file[64 + 32] = 20; // p_filesz
        file[64 + 48] = 4; // p_align
        file.extend(4_u32.to_le_bytes()); // n_namesz
        file.extend(4_u32.to_le_bytes()); // n_descsz
        file.extend(kind.to_le_bytes()); // n_type
        file.extend(owner);
        file.extend(0x0100_0000_u32.to_le_bytes());
        file
    }

    /// A bzImage around `payload`, with a gap before it as real ones have.
    pub(crate) fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 5 * 512 + 716];
        image[0x1f1] = 4;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x248..0x24c].copy_from_slice(&716_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("small");
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image.extend(b"what follows the payload");
        image
    }

    fn with_size(mut compressed: Vec<u8>, size: usize) -> Vec<u8> {
        compressed.extend(u32::try_from(size).expect("small").to_le_bytes());
        compressed
    }

    pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(data).expect("gzip");
        writer.finish().expect("gzip")
    }

    #[test]
    fn payload_is_found_by_the_header_and_undone() {
        let kernel = elf(b"Xen\0", 18);
        let zstd = ruzstd::encoding::compress_to_vec(
            &kernel[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        let images = [bz_image(&with_size(zstd, kernel.len())), bz_image(&gzip(&kernel))];
        for image in images {
            assert_eq!(extract(&image).expect("a good image"), kernel);
        }
        assert_eq!(extract(&kernel).expect("an ELF kernel"), kernel);
    }

    /// The kernel's build uses xz with the x86 filter and CRC32, and lz4's legacy frames.
    #[test]
    fn xz_and_lz4_as_the_kernel_uses_them_are_undone() {
        use lzma_rust2::{CheckType, FilterType, XzOptions, XzWriter};

        let kernel = elf(b"Xen\0", 18);
        let mut options = XzOptions::with_preset(6);
        options.set_check_sum_type(CheckType::Crc32);
        options.prepend_pre_filter(FilterType::BcjX86, 0);
        let mut xz = XzWriter::new(Vec::new(), options).expect("xz");
        xz.write_all(&kernel).expect("xz");
        let xz = xz.finish().expect("xz");

        let block = lz4_flex::block::compress(&kernel);
        let mut lz4 = 0x184c_2102_u32.to_le_bytes().to_vec();
        lz4.extend(u32::try_from(block.len()).expect("small").to_le_bytes());
        lz4.extend(block);

        for compressed in [xz, lz4] {
            let image = bz_image(&with_size(compressed, kernel.len()));
            assert_eq!(extract(&image).expect("a good image"), kernel);
        }
    }

    #[test]
    fn kernel_without_pvh_entry_is_told_which_option_is_missing() {
        for kernel in [elf(b"Xen\0", 17), elf(b"GNU\0", 18)] {
            let text = extract(&kernel).expect_err("no PVH").to_string();
            assert!(text.contains("CONFIG_PVH=y"), "{text}");
        }
    }

    #[test]
    fn wrong_size_is_damage() {
        let kernel = elf(b"Xen\0", 18);
        let mut payload = gzip(&kernel);
        let end = payload.len();
        payload[end - 4] ^= 1;
        let error = extract(&bz_image(&payload));
        assert!(matches!(error, Err(Error::Damaged(_))), "{error:?}");
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let mut old = bz_image(b"");
        old[0x206] = 0x07;
        let mut cut = bz_image(&gzip(&elf(b"Xen\0", 18)));
        cut.truncate(5 * 512 + 720);
        for (image, reason) in [
            (&b"#!/bin/sh"[..], "no setup header"),
            (&old, "older than 2.08"),
            (&cut, "truncated payload"),
            (&bz_image(b"BZh9........"), "bzip2"),
            (&bz_image(b"????........"), "unknown method"),
        ] {
            let text = extract(image).expect_err(reason).to_string();
            assert!(text.contains(reason), "{text}");
        }
    }
}
