//! Input that was valid and is so no more, or still.

use fastrand::Rng;

/// Values at which things change.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    51,
    63,
    64,
    107,
    108,
    127,
    128,
    255,
    256,
    511,
    512,
    1023,
    1024,
    4095,
    4096,
    32_767,
    32_768,
    65_535,
    65_536,
    0x00ff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fff0,
    0xffff_ffff_ffff_ffff,
];

/// Some number, more often than not one that matters.
pub(crate) fn number(rng: &mut Rng) -> u64 {
    match rng.u8(0..8) {
        0..4 => EDGES[rng.usize(0..EDGES.len())],
        4 => EDGES[rng.usize(0..EDGES.len())].wrapping_add(rng.u64(0..8)).wrapping_sub(4),
        5 => rng.u64(0..64),
        6 => u64::from(rng.u16(..)),
        _ => rng.u64(..),
    }
}

/// One of some.
pub(crate) fn one<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(0..of.len())]
}

/// Whether something happens that does so once in `n` times.
pub(crate) fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(0..n) == 0
}

/// Changes a text in `times` places; the result may be no UTF-8.
pub(crate) fn text(rng: &mut Rng, text: &mut Vec<u8>, words: &[&str], times: usize) {
    for _ in 0..times {
        change(rng, text, words);
    }
}

fn change(rng: &mut Rng, text: &mut Vec<u8>, words: &[&str]) {
    let (from, to) = (rng.usize(0..=text.len()), rng.usize(0..=text.len()));
    let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 64));
    let word = words[rng.usize(0..words.len())];
    match rng.u8(0..10) {
        0 => drop(text.drain(from..to)),
        1 => {
            let piece = text[from..to].to_vec();
            let at = rng.usize(0..=text.len());
            text.splice(at..at, piece);
        }
        2 if from < text.len() => text[from] = rng.u8(..),
        3 if from < text.len() => text[from] ^= 1 << rng.u8(0..8),
        4 => {
            text.splice(from..from, word.bytes());
        }
        5 => replace(text, from, u8::is_ascii_digit, &number(rng).to_string()),
        6 => replace(text, from, u8::is_ascii_alphabetic, word),
        // A quoted string with another.
        7 => replace(text, from, |byte| *byte != b'"' && *byte != b'\n', word),
        8 => {
            // Deep structures end in deep recursion.
            let open = one(rng, &["[", "{\"a\":", "{a=", "a.", "("]);
            let times = if once_in(rng, 20) { 5000 } else { 5 };
            text.splice(from..from, open.repeat(times).bytes());
        }
        _ => {
            // A line somewhere else, or once more.
            let end = text[from..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(text.len(), |at| from + at + 1);
            let line = text[from..end].to_vec();
            if rng.bool() {
                text.drain(from..end);
            }
            let at = rng.usize(0..=text.len());
            text.splice(at..at, line);
        }
    }
}

/// Puts `word` in the place of the next run of such bytes from `from` on.
fn replace(text: &mut Vec<u8>, from: usize, is_such: impl Fn(&u8) -> bool, word: &str) {
    let Some(start) = text[from..].iter().position(&is_such).map(|at| from + at) else { return };
    let end =
        text[start..].iter().position(|byte| !is_such(byte)).map_or(text.len(), |at| start + at);
    text.splice(start..end, word.bytes());
}

/// Bytes as people read them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
