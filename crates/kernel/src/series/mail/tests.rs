//! Headers and encodings as mail programs write them.

use super::*;
use crate::series::tests::{Bench, change, mail, patched, subjects, twenty};

#[test]
fn header_is_unfolded_and_ends_where_the_body_begins() {
    let text = b"From 0123 Mon Sep 17 00:00:00 2001\nFROM: A\nSubject: one\n two\n\tthree\n\
                 subject: later\nX-Empty:\n\nDate: of the body\n";
    assert_eq!(header(text, "from").as_deref(), Some("A"));
    assert_eq!(header(text, "subject").as_deref(), Some("one two\tthree"));
    assert_eq!(header(text, "x-empty").as_deref(), Some(""));
    assert_eq!(header(text, "date"), None);
    let text = b"Subject: x\r\nX: y\r\n\r\nDate: of the body\r\n";
    assert_eq!(header(text, "subject").as_deref(), Some("x"));
    assert_eq!(header(text, "date"), None);
}

#[test]
fn file_is_a_mail_if_it_begins_with_one_of_its_headers() {
    for text in ["From: a\n", "Subject: x\n", "date: today\n", "X: y\nMessage-ID: <a@x>\n"] {
        assert!(is_mail(text.as_bytes()), "{text}");
    }
    for text in [
        "diff --git a/x b/x\nSubject: x\n",
        "Index: x.c\n=====\nFrom: x\n",
        "a note: so it is\nSubject: x\n",
        "To: you\n\nSubject: x\n",
        "",
    ] {
        assert!(!is_mail(text.as_bytes()), "{text}");
    }
}

#[test]
fn message_id_is_the_first_in_brackets() {
    let id = |value: &str| message_id(format!("In-Reply-To: {value}\n").as_bytes(), "in-reply-to");
    assert_eq!(id("<a@x>").as_deref(), Some("a@x"));
    assert_eq!(id("Your mail of Monday <a@x> <b@y>").as_deref(), Some("a@x"));
    assert_eq!(id("a@x"), None);
    assert_eq!(id("<a@x"), None);
}

#[test]
fn base_commit_is_a_hash() {
    let of = |value: &str| base_commit(format!("Why.\nbase-commit: {value}\nmore\n").as_bytes());
    for hash in ["0123456", &"a".repeat(40), &"f".repeat(64)] {
        assert_eq!(of(hash).as_deref(), Some(hash));
    }
    assert_eq!(of("0123456 ").as_deref(), Some("0123456"));
    for other in ["", "012345", &"a".repeat(65), "next-20260122", "linux72", "0123456 and more"] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn files_of_a_directory_are_chosen_by_their_ending() {
    let bench = Bench::new();
    let chosen = ["a.patch", "b.DIFF", "c.eml.gz", "d.mbox.xz", "e.mbx.zst"];
    for name in chosen.iter().chain(&["f.patch~", "g.gz", "h.txt", "patch", "cur/i.patch"]) {
        bench.write(&format!("d/{name}"), "");
    }
    let dir = bench.dir.path().join("d");
    let found = files(&dir).expect("a directory");
    assert_eq!(found, chosen.map(|name| dir.join(name)));
}

/// Applies the one patch in these bytes to `block/bsg.c`; what it becomes.
fn becomes(bench: &Bench, bytes: &[u8]) -> Vec<u8> {
    let series = read(&bench.write("mbox", bytes)).expect("a series");
    let applied = bench.apply(&series).expect("it applies");
    fs::read(applied.overlay.root.join("block/bsg.c")).expect("a patched file")
}

/// Latin-1 in a file stays Latin-1, whatever the mail says; its subject is text.
#[test]
fn diff_keeps_the_bytes_of_its_file_and_the_subject_is_decoded() {
    let bench = Bench::new();
    let text = mail("=?ISO-8859-1?q?[PATCH]_Gr=FC=DFe?=", &change("block/bsg.c", 5, "Gr\u{1}e"));
    let latin = |text: String| -> Vec<u8> {
        text.into_bytes().into_iter().map(|byte| if byte == 1 { 0xfc } else { byte }).collect()
    };
    let expected = latin(twenty().replace("line 5\n", "Gr\u{1}e\n"));
    for charset in ["UTF-8", "x-not-a-character-set", "ISO-8859-1"] {
        let head = format!(
            "Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: 8bit\nSubject:"
        );
        let bytes = latin(text.replacen("Subject:", &head, 1));
        assert_eq!(becomes(&bench, &bytes), expected, "{charset}");
    }
    let series = read(&bench.dir.path().join("mbox")).expect("a series");
    assert_eq!(subjects(&series), ["Grüße"]);
}

/// Two things that only the encoded form of a mail shows: a line that ends in a carriage return, and
/// one that begins with `From ` and was quoted by the archive.
#[test]
fn quoted_printable_hides_neither_carriage_returns_nor_quoted_from_lines() {
    let bench = Bench::new();
    let expected = twenty().replace("line 5\n", "It comes From here\n");
    let encoded = |body: String| {
        let head = "Content-Type: text/plain; charset=UTF-8\n\
                    Content-Transfer-Encoding: quoted-printable\nSubject:";
        mail("[PATCH] x", &body).replacen("Subject:", head, 1)
    };
    let diff = change("block/bsg.c", 5, "It comes From here");
    let broken = encoded(diff.replace("comes From", "comes =\n>From"));
    assert_eq!(becomes(&bench, broken.as_bytes()), expected.as_bytes());
    let returned = encoded(diff.replace('\n', "=0D\n"));
    assert_eq!(becomes(&bench, returned.as_bytes()), expected.as_bytes());
}

#[test]
fn author_and_subject_are_taken_as_far_as_they_are_there() {
    let bench = Bench::new();
    let text = mail("[PATCH] x", &change("block/bsg.c", 5, "x"));
    let first = |text: String| bench.mbox(&[text]).expect("a series").patches.remove(0);
    let from = |value: &str| {
        first(text.replace("From: A Person <a@person.example>", &format!("From: {value}"))).author
    };
    assert_eq!(from("\"Person, A\" <a@person.example>"), "Person, A <a@person.example>");
    assert_eq!(from("<a@person.example>"), "a@person.example <a@person.example>");
    assert_eq!(from("A Person"), "");
    assert_eq!(first(text.replace("Subject: [PATCH] x\n", "")).subject, "(no subject)");
}

#[test]
fn format_flowed_is_known_however_it_is_spelled() {
    let bench = Bench::new();
    let head = "Content-Type: Text/Plain; Format=Flowed\nSubject:";
    let diff = change("block/bsg.c", 5, "x");
    let text = mail("[PATCH] x", &diff).replacen("Subject:", head, 1);
    let series = bench.mbox(&[text]).expect("a series");
    assert_eq!(series.notes, ["\"x\": the mail says format=flowed and is not; taken as it is"]);
    bench.apply(&series).expect("it applies");
}

#[test]
fn bare_diff_of_a_file_with_carriage_returns_keeps_them() {
    let bench = Bench::new();
    let dos = twenty().replace('\n', "\r\n");
    bench.write("tree/block/bsg.c", &dos);
    let diff = change("block/bsg.c", 5, "x");
    let (head, hunk) = diff.split_at(diff.find("\n line 2").expect("a hunk") + 1);
    let diff = format!("{head}{}", hunk.replace('\n', "\r\n"));
    let expected = dos.replace("line 5\r\n", "x\r\n");
    assert_eq!(becomes(&bench, diff.as_bytes()), expected.as_bytes());
}

/// A mail that git cannot take apart, here for want of room, is not a mail without a patch.
#[test]
fn mail_that_cannot_be_taken_apart_is_an_error() {
    let scratch = tempfile::tempdir().expect("temporary directory");
    let reader = Reader { scratch: scratch.path() };
    let text = mail("[PATCH] x", &change("block/bsg.c", 5, "x"));
    reader.decoded(text.as_bytes(), 1).expect("a mail");
    fs::remove_file(scratch.path().join("patch")).expect("removed");
    fs::create_dir(scratch.path().join("patch")).expect("in the way");
    let error = reader.decoded(text.as_bytes(), 1).expect_err("nowhere to write").to_string();
    assert!(error.contains("git mailinfo") && error.contains("directory"), "{error}");
}

/// `git format-patch --base` puts it below the diff, and of a cover letter into its only text.
#[test]
fn base_commit_is_found_above_and_below_the_diff() {
    let bench = Bench::new();
    let diff = change("block/bsg.c", 5, "x");
    let base = "base-commit: 0123456789abcdef\n";
    let above = mail("[PATCH] x", &diff).replace("Why.\n", &format!("Why.\n{base}"));
    let below = mail("[PATCH] x", &format!("{diff}\n{base}"));
    let cover = format!(
        "From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\n\
         Subject: [PATCH 0/1] x\n\nWhy.\n\n{base}\n"
    );
    let covered = [cover, mail("[PATCH 1/1] x", &diff)].concat();
    for text in [above, below, covered] {
        let series = bench.mbox(std::slice::from_ref(&text)).expect("a series");
        assert_eq!(series.base_commit.as_deref(), Some("0123456789abcdef"), "{text}");
    }
}

#[test]
fn bare_diff_may_name_its_base_commit() {
    let bench = Bench::new();
    let diff = format!("base-commit: 0123456789abcdef\n\n{}", change("block/bsg.c", 5, "x"));
    let series = read(&bench.write("x.diff", diff)).expect("a series");
    assert_eq!(series.base_commit.as_deref(), Some("0123456789abcdef"));
    assert_eq!(subjects(&series), ["x.diff"]);
}

/// git can be brought to read a diff that was cut off there, and the rest would be lost in silence.
#[test]
fn removed_line_that_looks_like_a_signature_is_part_of_the_diff() {
    let bench = Bench::new();
    let expected = twenty().replace("line 5\n", "x\n");
    bench.write("tree/block/bsg.c", twenty().replace("line 5\n", "- \n"));
    let diff = change("block/bsg.c", 5, "x").replace("-line 5\n", "-- \n");
    assert_eq!(becomes(&bench, diff.as_bytes()), expected.as_bytes());
    assert_eq!(becomes(&bench, mail("[PATCH] x", &diff).as_bytes()), expected.as_bytes());
    // The last line of all.
    bench.write("tree/block/bsg.c", "a\n- \n");
    let diff = "--- a/block/bsg.c\n+++ b/block/bsg.c\n@@ -1,2 +1,1 @@\n a\n-- \n";
    assert_eq!(becomes(&bench, diff.as_bytes()), b"a\n");
}

#[test]
fn patch_may_add_blanks_at_the_end_of_a_line() {
    let bench = Bench::new();
    let series = bench.mbox(&[mail("[PATCH] x", &change("block/bsg.c", 5, "x \t"))]);
    let applied = bench.apply(&series.expect("a series")).expect("it applies");
    assert_eq!(patched(&applied, "block/bsg.c"), twenty().replace("line 5\n", "x \t\n"));
    assert_eq!(applied.notes, Vec::<String>::new());
}
