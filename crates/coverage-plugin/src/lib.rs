//! A plugin of QEMU's translator (`-plugin`): it writes down which code of the guest's kernel was
//! translated, in the file of `coverage-log`.
//!
//! QEMU translates a block of instructions when the guest is about to execute it for the first time,
//! so a translated block is one that was entered. Not quite the same as executed: a block that takes
//! an exception in its middle, such as a page fault in a copy from user space, is written down to its
//! end. A block that was translated is not seen again, unless QEMU has thrown its code away; how
//! often one runs is not known. Only the upper half of the address space counts, that is the kernel.
//!
//! Interface: QEMU's include/qemu/qemu-plugin.h. What is used of it has been the same since QEMU 7.2
//! (version 1) and is so in 10.2 (version 5).
//!
//! It must not know the bench, nor what is at an address.

mod map;

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
};

use coverage_log::Block;
use map::Map;

/// The interface's version that this plugin asks for.
///
/// QEMU 9 and newer refuse 1, and older ones refuse 2; see `choose_version`. QEMU reads it, as an
/// `int`, after it has loaded the library and before it calls anything in it.
// SAFETY: no other symbol of this name is in QEMU; it expects one in each plugin.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// Runs while the library is loaded, as C's constructors do.
// SAFETY: the section is an array of pointers to functions of this type, and `choose_version` needs
// nothing that is not there before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

/// Version 2 came with scoreboards (QEMU 9.0), and with it version 1 went.
extern "C" fn choose_version() {
    // SAFETY: the name is a C string; the lookup has no side effects.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"qemu_plugin_scoreboard_new".as_ptr()) };
    if !found.is_null() {
        qemu_plugin_version.store(2, Ordering::Relaxed);
    }
}

/// `struct qemu_plugin_tb`, `struct qemu_plugin_insn`: QEMU's, and valid during a callback.
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

/// `qemu_plugin_vcpu_tb_trans_cb_t`
type Translated = extern "C" fn(id: u64, block: *const Opaque);

// SAFETY: as include/qemu/qemu-plugin.h declares them.
unsafe extern "C" {
    safe fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: Translated);
    fn qemu_plugin_tb_n_insns(block: *const Opaque) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const Opaque) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const Opaque, index: usize) -> *const Opaque;
    fn qemu_plugin_insn_vaddr(instruction: *const Opaque) -> u64;
    fn qemu_plugin_insn_size(instruction: *const Opaque) -> usize;
}

static LOG: OnceLock<Map> = OnceLock::new();

/// The word before the file's name in `-plugin LIBRARY,out=FILE`.
const OUT: &str = "out=";

/// QEMU's first call.
///
/// # Safety
/// `argv` has to point to `argc` C strings that live as long as the process.
// SAFETY: QEMU looks for this name in each plugin by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0)).filter_map(|index| {
        // SAFETY: the caller, QEMU, keeps `argc` C strings for as long as the plugin is loaded.
        let argument = unsafe { CStr::from_ptr(*argv.add(index)) };
        argument.to_str().ok()
    });
    let Some(path) = arguments.filter_map(|argument| argument.strip_prefix(OUT)).next_back() else {
        return refuse("no argument out=FILE");
    };
    match Map::open(path.as_ref()) {
        // A second plugin would be a second library with its own variables.
        Ok(map) => drop(LOG.set(map)),
        Err(error) => return refuse(&format!("{path}: {error}")),
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    0
}

/// Says why, and makes QEMU give up.
#[expect(clippy::print_stderr, reason = "QEMU's own log, which the bench shows")]
fn refuse(reason: &str) -> c_int {
    eprintln!("sensecheck's coverage plugin: {reason}");
    -1
}

/// QEMU has translated a block. On several virtual CPUs it calls this from several threads.
extern "C" fn translated(_id: u64, block: *const Opaque) {
    // SAFETY: QEMU passes a block, whose instructions are numbered from zero, that is valid until
    // this returns.
    let (address, end) = unsafe {
        let Some(last) = qemu_plugin_tb_n_insns(block).checked_sub(1) else { return };
        let last = qemu_plugin_tb_get_insn(block, last);
        let end = qemu_plugin_insn_vaddr(last)
            .wrapping_add(u64::try_from(qemu_plugin_insn_size(last)).unwrap_or(0));
        (qemu_plugin_tb_vaddr(block), end)
    };
    // A block is at most two pages long.
    let Ok(len_bytes) = u16::try_from(end.wrapping_sub(address)) else { return };
    if let (Some(word), Some(log)) = (Block { address, len_bytes }.to_word(), LOG.get()) {
        log.append(word);
    }
}
