//! The two doors to the kernel, and all unsafe code of this crate: the `SG_IO` call, and the promise
//! a ring asks for.
//!
//! A frame owns the memory of its command as [`Pointer`]s. They are written over
//! the address fields of the structure right before the kernel sees it, so no other address gets
//! there. A length that lies runs into the guard page behind a buffer. Which structure a file takes was looked at when
//! it was opened ([`crate::node`]).

use std::{
    ffi::c_void,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
};

use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl},
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap},
};
use uring_cmd::{Operation, Pointer, Region, Sqe};
use zerocopy::IntoBytes;

use crate::{NodeIoctl, StructurePlace, UringFrame, V3Frame, V4Frame, uapi};

/// `ioctl(SG_IO)` with the v4 structure. Blocks, uninterruptibly, until the command is done.
pub(crate) fn sg_io_v4(fd: BorrowedFd<'_>, frame: &mut V4Frame) -> Result<(), Errno> {
    frame.place();
    // SAFETY: the structure is the one this call takes; its addresses are those of the frame's
    // pointers (`place`), which live until the call returns. bsg does not read its iovec counts.
    unsafe { ioctl(fd, Updater::<{ uapi::SG_IO }, uapi::SgIoV4>::new(&mut frame.header)) }
}

/// As [`sg_io_v4`], with the structure where the kernel cannot have it, or cannot write it.
pub(crate) fn sg_io_v4_at(
    fd: BorrowedFd<'_>,
    frame: &mut V4Frame,
    place: StructurePlace,
) -> io::Result<Result<(), Errno>> {
    frame.place();
    let memory = Region::zeroed(PAGE)?;
    memory.write(0, frame.header.as_bytes());
    memory.make_read_only(0..PAGE)?;
    let address = match place {
        StructurePlace::Null => Pointer::Null.address(),
        StructurePlace::Unmapped => Pointer::Unmapped.address(),
        StructurePlace::Kernel => Pointer::Kernel.address(),
        StructurePlace::ReadOnly => memory.address(),
    };
    // SAFETY: the structure is the one this call takes, or there is none. Nobody else has the region, which lives until
    // the call returns; the structure's addresses are those of the frame's pointers, as above.
    Ok(unsafe { ioctl(fd, NodeCall { opcode: uapi::SG_IO, address }) }.map(drop))
}

/// Length of the region that has the structure.
const PAGE: usize = 4096;

/// `ioctl(SG_IO)` with the v3 structure. Blocks until the command is done.
///
/// # Panics
/// If the frame asks for an iovec, whose addresses a frame does not own.
pub(crate) fn sg_io_v3(fd: BorrowedFd<'_>, frame: &mut V3Frame) -> Result<(), Errno> {
    assert_eq!(frame.header.iovec_count, 0, "sg v3 frames are flat");
    frame.place();
    // SAFETY: the structure is the one this call takes; its addresses are those of the frame's
    // pointers (`place`), which live until the call returns, and `dxferp` is no iovec.
    unsafe { ioctl(fd, Updater::<{ uapi::SG_IO }, uapi::SgIoHdr>::new(&mut frame.header)) }
}

/// `ioctl(SG_SCSI_RESET)`. Blocks until the error handler has tried.
pub(crate) fn sg_scsi_reset(fd: BorrowedFd<'_>, what: i32) -> Result<(), Errno> {
    // SAFETY: the call takes the address of an int, which it reads (scsi_error.c:scsi_ioctl_reset).
    unsafe { ioctl(fd, Setter::<{ uapi::SG_SCSI_RESET }, i32>::new(what)) }
}

/// A call of a bsg node with an address.
struct NodeCall {
    opcode: Opcode,
    address: u64,
}

// SAFETY: who makes one sees to it that there is at the address what the opcode takes (block/bsg.c:bsg_ioctl), or
// nothing. What the call returns is a number.
unsafe impl Ioctl for NodeCall {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        let address = usize::try_from(self.address).expect("an address of this process, or none");
        ptr::with_exposed_provenance_mut(address)
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<i32, Errno> {
        Ok(output)
    }
}

/// One of the calls of a bsg node that move no command.
///
/// # Panics
/// If the pointer is one into memory with less room than an int takes.
pub(crate) fn node_ioctl(
    fd: BorrowedFd<'_>,
    call: NodeIoctl,
    argument: &mut Pointer,
) -> Result<i32, Errno> {
    match argument {
        Pointer::Null | Pointer::Unmapped | Pointer::Kernel => {}
        ref pointer => assert!(
            pointer.buffer().is_some_and(|buffer| buffer.len() >= size_of::<i32>()),
            "room for an int"
        ),
    }
    let opcode = call as Opcode;
    // SAFETY: each opcode of `NodeIoctl` takes the address of an int, or looks at none; the address is that of the
    // pointer, which has room for one and lives until the call returns, or one where this process has no memory.
    unsafe { ioctl(fd, NodeCall { opcode, address: argument.address() }) }
}

/// Where a page is asked for that a program of 32 bits could have: below 4 GiB, and above where programs are loaded.
const LOW: usize = 0x7000_0000;

/// Memory below 4 GiB for the argument of one call, between two inaccessible pages.
struct LowPage {
    reserved: NonNull<u8>,
}

impl LowPage {
    fn holding(bytes: &[u8]) -> io::Result<Self> {
        assert!(bytes.len() <= PAGE, "an argument is short");
        // SAFETY: a new mapping that replaces none.
        let reserved = unsafe {
            mmap_anonymous(
                ptr::with_exposed_provenance_mut(LOW),
                3 * PAGE,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE,
            )?
        };
        let reserved = NonNull::new(reserved.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let page = LowPage { reserved };
        // SAFETY: our own page in the middle, to which nothing refers; it has room.
        unsafe {
            mprotect(page.start().cast(), PAGE, MprotectFlags::READ | MprotectFlags::WRITE)?;
            ptr::copy_nonoverlapping(bytes.as_ptr(), page.start(), bytes.len());
        }
        Ok(page)
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: one page into a reservation of three.
        unsafe { self.reserved.add(PAGE) }.as_ptr()
    }

    /// What is there now.
    fn read(&self, bytes: &mut [u8]) {
        assert!(bytes.len() <= PAGE, "an argument is short");
        // SAFETY: our own page, which has so many bytes and to which nobody else refers.
        unsafe { ptr::copy_nonoverlapping(self.start(), bytes.as_mut_ptr(), bytes.len()) };
    }
}

impl Drop for LowPage {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours, and ends with it.
        let unmapped = unsafe { munmap(self.reserved.as_ptr().cast(), 3 * PAGE) };
        unmapped.expect("a mapping of ours can be unmapped");
    }
}

/// `ioctl` as a program of 32 bits calls it, by `int 0x80` (arch/x86/entry/syscalls/syscall_32.tbl: 54). A kernel without
/// `CONFIG_IA32_EMULATION` ends the process instead.
///
/// # Safety
/// At the page is what the opcode takes.
#[cfg(target_arch = "x86_64")]
unsafe fn ioctl_of_32_bits(
    fd: BorrowedFd<'_>,
    opcode: u32,
    argument: &LowPage,
) -> Result<i32, Errno> {
    let result: i32;
    // SAFETY: the call touches no memory but what the caller promises for, and no register but those named; `rbx`, which
    // is the compiler's, gets its own back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) i64::from(fd.as_raw_fd()) => _,
            inlateout("eax") 54 => result,
            in("ecx") opcode,
            in("rdx") argument.start(),
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(result) }
}

/// As [`sg_io_v4`], as a program of 32 bits would. The structure is the same, and what it points to may lie anywhere.
#[cfg(target_arch = "x86_64")]
pub(crate) fn sg_io_v4_of_32_bits(
    fd: BorrowedFd<'_>,
    frame: &mut V4Frame,
) -> io::Result<Result<(), Errno>> {
    frame.place();
    let page = LowPage::holding(frame.header.as_bytes())?;
    // SAFETY: the structure is the one this call takes; its addresses are those of the frame's pointers, which live until
    // the call returns.
    let result = unsafe { ioctl_of_32_bits(fd, uapi::SG_IO, &page) };
    page.read(frame.header.as_mut_bytes());
    Ok(result.map(drop))
}

/// As [`node_ioctl`], as a program of 32 bits would.
#[cfg(target_arch = "x86_64")]
pub(crate) fn node_ioctl_of_32_bits(
    fd: BorrowedFd<'_>,
    call: NodeIoctl,
    argument: &mut i32,
) -> io::Result<Result<i32, Errno>> {
    let page = LowPage::holding(argument.as_bytes())?;
    // SAFETY: each opcode of `NodeIoctl` takes the address of an int, or looks at none.
    let result = unsafe { ioctl_of_32_bits(fd, call as u32, &page) };
    page.read(argument.as_mut_bytes());
    Ok(result)
}

// SAFETY: the entry is a `URING_CMD` on the bsg node the frame keeps open (`entry` takes no other operation). Its
// addresses are those of the frame's pointers, whose memory stays where it is when the frame moves; no code reaches a
// buffer while the ring has the frame, and a region gives no references. Any other number for data goes with the flag
// for registered buffers, whose pages the kernel has pinned. bsg does not read `sqe.addr`, and refuses iovec counts.
// The loose words are lengths, which may lie as they are, and times.
unsafe impl Operation for UringFrame {
    fn sqe(&mut self) -> Sqe {
        self.entry()
    }

    fn loose_words() -> &'static [u32] {
        &LOOSE_WORDS
    }
}

/// Offsets in the entry of `request_len`, `max_response_len`, `dout_xfer_len`, `din_xfer_len` and `timeout_ms`.
const LOOSE_WORDS: [u32; 5] = [56, 68, 88, 104, 112];
