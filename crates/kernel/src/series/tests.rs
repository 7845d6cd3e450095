use std::{collections::BTreeMap, fs, io::Write, path::Path};

use proptest::prelude::*;

use super::*;

/// A file of twenty lines, `line 1` to `line 20`.
pub(super) fn twenty() -> String {
    (1..=20).map(|n| format!("line {n}\n")).collect()
}

/// A diff that replaces line `n` of [`twenty`] in `file` by `new`, as git writes it.
pub(super) fn change(file: &str, n: usize, new: &str) -> String {
    let line = |n: usize| format!(" line {n}\n");
    format!(
        "diff --git a/{file} b/{file}\nindex 1234567..89abcde 100644\n--- a/{file}\n+++ b/{file}\n\
         @@ -{start},7 +{start},7 @@\n{before}-line {n}\n+{new}\n{after}",
        start = n - 3,
        before = (n - 3..n).map(line).collect::<String>(),
        after = (n + 1..n + 4).map(line).collect::<String>(),
    )
}

/// A mail of an mbox.
pub(super) fn mail(subject: &str, body: &str) -> String {
    format!(
        "From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\n\
         From: A Person <a@person.example>\nDate: Thu, 22 Jan 2026 09:56:53 +0800\n\
         Subject: {subject}\n\nWhy.\n\n---\n 1 file changed\n\n{body}-- \n2.43.0\n\n"
    )
}

/// A directory with a tree and whatever a test adds.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().expect("temporary directory") };
        bench.write("tree/block/bsg.c", twenty());
        bench.write("tree/block/other.c", twenty());
        bench
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(&path, content).expect("write");
        path
    }

    pub(super) fn mbox(&self, mails: &[String]) -> Result<Series, ReadError> {
        read(&self.write("mbox", mails.concat()))
    }

    pub(super) fn apply(&self, series: &Series) -> Result<Patched, ApplyError> {
        let before = content(&self.dir.path().join("tree"));
        let applied = apply(series, &self.dir.path().join("tree"));
        assert_eq!(content(&self.dir.path().join("tree")), before, "the tree was written to");
        applied
    }

    /// Applies one diff.
    pub(super) fn patch(&self, diff: &str) -> Result<Patched, ApplyError> {
        self.apply(&read(&self.write("x.patch", diff)).expect("a patch"))
    }
}

fn content(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).expect("read").map(|entry| entry.expect("entry").path()) {
        if entry.is_symlink() {
            continue;
        } else if entry.is_dir() {
            found.extend(content(&entry));
        } else {
            found.insert(entry.clone(), fs::read(&entry).expect("read"));
        }
    }
    found
}

pub(super) fn subjects(series: &Series) -> Vec<String> {
    series.patches.iter().map(|patch| patch.subject.clone()).collect()
}

pub(super) fn patched(applied: &Patched, file: &str) -> String {
    fs::read_to_string(applied.overlay.root.join(file)).expect("a patched file")
}

/// A thread as an archive gives it: in any order, with a cover letter, answers and an older version.
#[test]
fn newest_version_is_found_in_a_thread() {
    let bench = Bench::new();
    // Typed by hand, and no whole diff: nobody means to apply it.
    let proposal = change("block/bsg.c", 15, "a proposal").replace(" line 14", "line 14");
    let thread = [
        mail("[PATCH v2 2/2] second", &change("block/bsg.c", 10, "two")),
        mail("[PATCH 1/2] first", &change("block/bsg.c", 5, "old")),
        mail("Re: [PATCH v2 1/2] first", "> diff --git a/x b/x\n> --- a/x\n> +++ b/x\n"),
        mail("[PATCH v2 0/2] cover", "base-commit: 0123456789abcdef\n"),
        mail("Re: [PATCH v2 2/2] second", &proposal),
        mail("[PATCH v2 1/2] first", &change("block/bsg.c", 5, "one")),
        mail("[PATCH 2/2] second", &change("block/bsg.c", 10, "old")),
        mail("[PATCH] unrelated", &change("block/other.c", 5, "x")),
    ];
    let series = bench.mbox(&thread).expect("a series");
    assert_eq!(subjects(&series), ["first", "second"]);
    assert_eq!(series.patches[0].author, "A Person <a@person.example>");
    assert_eq!(series.patches[0].files, [Path::new("block/bsg.c")]);
    assert_eq!(series.patches[1].to_string(), "patch 2/2 \"second\"");
    assert_eq!(series.base_commit.as_deref(), Some("0123456789abcdef"));
    assert_eq!(
        series.notes,
        [
            "left out: a diff in an answer to \"second\"",
            "left out: version 1, 2 patches",
            "taken: version 2",
            "left out, as it has no number in the series: \"unrelated\"",
        ]
    );
    let applied = bench.apply(&series).expect("it applies");
    let expected = twenty().replace("line 5\n", "one\n").replace("line 10\n", "two\n");
    assert_eq!(patched(&applied, "block/bsg.c"), expected);
    assert_eq!(applied.overlay.files, [Path::new("block/bsg.c")]);
    assert_eq!(applied.overlay.removed, Vec::<PathBuf>::new());
    assert_eq!(applied.notes, series.notes);
}

#[test]
fn compressed_mbox_and_copies_of_a_mail_are_read() {
    let bench = Bench::new();
    let patch = mail("[PATCH 1/1] x", &change("block/bsg.c", 5, "x"));
    let text = patch.repeat(2);
    let gz = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("compress");
        encoder.finish().expect("compress")
    };
    let xz = {
        let options = lzma_rust2::XzOptions::default();
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).expect("an encoder");
        encoder.write_all(text.as_bytes()).expect("compress");
        encoder.finish().expect("compress")
    };
    let plain = read(&bench.write("t.mbox", &text)).expect("a series");
    assert_eq!(plain.patches.len(), 1);
    assert_eq!(read(&bench.write("t.mbox.gz", &gz)).expect("a series"), plain);
    assert_eq!(read(&bench.write("t.mbox.xz", &xz)).expect("a series"), plain);
    let error = read(&bench.write("t.mbox.gz", &gz[..gz.len() / 2])).expect_err("cut short");
    assert!(matches!(error, ReadError::Compressed { .. }), "{error}");
}

#[test]
fn missing_patches_are_named() {
    let bench = Bench::new();
    let patch = |subject| mail(subject, &change("block/bsg.c", 5, "x"));
    let thread =
        [patch("[PATCH v3 2/4] b"), mail("[PATCH v3 4/4] d", "no diff\n"), patch("[PATCH 1/4] a")];
    let text = bench.mbox(&thread).expect_err("missing").to_string();
    assert!(
        text.contains("has no patch 1/4, 3/4, 4/4 of version 3 (4/4: the mail has no diff); fetch"),
        "{text}"
    );
    // A single mail is what its giver means.
    let series = bench.mbox(&thread[..1]).expect("one patch");
    assert_eq!(
        series.notes,
        ["a part of a series only: 1/4, 3/4, 4/4 are not there", "taken: version 3"]
    );
}

#[test]
fn new_version_of_one_patch_in_answer_to_the_old_replaces_that_alone() {
    let bench = Bench::new();
    let with =
        |header: &str, text: String| text.replacen("Subject:", &format!("{header}\nSubject:"), 1);
    let patch = |subject, n| mail(subject, &change("block/bsg.c", n, subject));
    let older =
        [patch("[PATCH 1/2] a", 5), with("Message-ID: <old-2@x>", patch("[PATCH 2/2] b", 10))];
    let newer = with("In-Reply-To: <old-2@x>", patch("[PATCH v2 2/2] b", 15));
    let thread = [&older[..], std::slice::from_ref(&newer)].concat();
    let series = bench.mbox(&thread).expect("a series");
    assert_eq!(subjects(&series), ["a", "b"]);
    assert!(String::from_utf8_lossy(&series.patches[1].diff).contains("+[PATCH v2 2/2] b"));
    assert_eq!(
        series.notes[0],
        "version 2 replaces only 2 of 2; the others are taken from version 1"
    );
    // The answer counts otherwise: it is no part of the old series.
    let resized = [&older[..], &[newer.replace("v2 2/2", "v2 3/3")]].concat();
    assert!(matches!(bench.mbox(&resized), Err(ReadError::Missing { version: 2, .. })));
    // The same, not in answer to it: mails of the new version have got lost.
    let lost = [&older[..], &[newer.replace("old-2@x", "else@x")]].concat();
    assert!(matches!(bench.mbox(&lost), Err(ReadError::Missing { version: 2, .. })));
}

#[test]
fn two_series_in_one_file_are_not_mixed() {
    let bench = Bench::new();
    let thread = [
        mail("[PATCH 1/2] one", &change("block/bsg.c", 5, "x")),
        mail("[PATCH 1/2] other", &change("block/bsg.c", 5, "y")),
    ];
    let text = bench.mbox(&thread).expect_err("ambiguous").to_string();
    assert!(
        text.contains("two different patches 1/2 of version 1: \"one\" and \"other\""),
        "{text}"
    );
}

#[test]
fn patches_without_numbers_keep_the_order_of_their_files() {
    let bench = Bench::new();
    for (name, subject, n) in [
        ("0002-b.patch", "[PATCH] b", 10),
        ("0001-a.patch", "[PATCH v2] a", 5),
        ("0000-a.patch", "[PATCH] a", 7),
    ] {
        bench.write(&format!("d/{name}"), mail(subject, &change("block/bsg.c", n, "x")));
    }
    bench.write("d/0003-bare.diff", change("block/other.c", 5, "x"));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(change("block/other.c", 10, "x").as_bytes()).expect("compress");
    bench.write("d/0004-bare.PATCH.gz", gz.finish().expect("compress"));
    bench.write("d/README", "no patch");
    bench.write("d/0001-a.patch.orig", change("block/other.c", 9, "x"));
    let series = read(&bench.dir.path().join("d")).expect("a series");
    assert_eq!(subjects(&series), ["a", "b", "0003-bare.diff", "0004-bare.PATCH.gz"]);
    assert_eq!(series.notes, ["left out: version 1 of \"a\""]);
    bench.apply(&series).expect("it applies");
}

#[test]
fn quilt_series_is_taken_as_its_file_says() {
    let bench = Bench::new();
    bench.write("q/a.patch", change("block/bsg.c", 5, "x"));
    bench.write(
        "q/b.patch",
        change("block/bsg.c", 10, "y").replace("a/block", "block").replace("b/block", "block"),
    );
    bench.write("q/unlisted.patch", "nothing");
    let list = bench.write("q/series", "# a comment\nb.patch -p0 # first\n\na.patch\n");
    let series = read(&bench.dir.path().join("q")).expect("a series");
    assert_eq!(subjects(&series), ["b.patch", "a.patch"]);
    let applied = bench.apply(&series).expect("it applies");
    assert_eq!(
        patched(&applied, "block/bsg.c"),
        twenty().replace("line 5\n", "x\n").replace("line 10\n", "y\n")
    );
    for (text, told) in [
        ("a.patch\ngone.patch\n", "series:2: there is no file gone.patch beside it"),
        ("a.patch -R\n", "series:1: -R is no option"),
        ("\n", "its file `series` lists none"),
        ("unlisted.patch\n", "\"unlisted.patch\" has no diff"),
    ] {
        fs::write(&list, text).expect("write");
        let error = read(&bench.dir.path().join("q")).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn maildir_is_read() {
    let bench = Bench::new();
    let without_from = |text: String| text.split_once('\n').expect("lines").1.to_owned();
    bench.write("m/cur/1:2,S", without_from(mail("[PATCH 2/2] b", &change("block/bsg.c", 5, "x"))));
    bench.write("m/new/2", without_from(mail("[PATCH 1/2] a", &change("block/bsg.c", 10, "x"))));
    let series = read(&bench.dir.path().join("m")).expect("a series");
    assert_eq!(subjects(&series), ["a", "b"]);
}

#[test]
fn what_holds_no_patch_is_told() {
    let bench = Bench::new();
    let told = |result: Result<Series, ReadError>| result.expect_err("no patch").to_string();
    let answers =
        [mail("[PATCH 0/2] x", ""), mail("Re: [PATCH 1/2] x", "> +x\n"), mail("hello", "")];
    let text = told(bench.mbox(&answers));
    assert!(text.contains("1 cover letters, 1 answers, 1 other mails"), "{text}");
    fs::create_dir(bench.dir.path().join("empty")).expect("directory");
    assert!(told(read(&bench.dir.path().join("empty"))).contains("it is empty"));
    assert!(told(read(&bench.dir.path().join("gone"))).contains("cannot read"));
}

/// Transfer encodings, and lines that end in carriage return and newline.
#[test]
fn encoded_mails_are_decoded() {
    let bench = Bench::new();
    let diff = change("block/bsg.c", 5, "Grüße = 1");
    let quoted = diff.replace('=', "=3D").replace('ü', "=C3=BC").replace('ß', "=C3=9F");
    let head = "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable\nSubject:";
    let encoded =
        mail("=?UTF-8?q?[PATCH]_Gr=C3=BC=C3=9Fe?=", &quoted).replacen("Subject:", head, 1);
    let series = bench.mbox(&[encoded]).expect("a series");
    assert_eq!(subjects(&series), ["Grüße"]);
    let applied = bench.apply(&series).expect("it applies");
    assert_eq!(patched(&applied, "block/bsg.c"), twenty().replace("line 5\n", "Grüße = 1\n"));

    for text in [mail("[PATCH] x", &diff), diff.clone()] {
        let path = bench.write("crlf.patch", text.replace('\n', "\r\n"));
        let applied = bench.apply(&read(&path).expect("a series")).expect("it applies");
        assert_eq!(patched(&applied, "block/bsg.c"), twenty().replace("line 5\n", "Grüße = 1\n"));
    }
}

#[test]
fn flowed_mail_is_put_right_and_wrapped_lines_are_named() {
    let bench = Bench::new();
    let flowed = |diff: &str| {
        let head = "Content-Type: text/plain; format=flowed\nSubject:";
        mail("[PATCH 1/1] x", diff).replacen("Subject:", head, 1)
    };
    let diff = change("block/bsg.c", 5, "x");
    let stuffed = diff.replace("\n line", "\n  line");
    let series = bench.mbox(&[flowed(&stuffed)]).expect("a series");
    assert_eq!(series.notes, Vec::<String>::new());
    bench.apply(&series).expect("it applies");
    let series = bench.mbox(&[flowed(&diff)]).expect("a series");
    assert_eq!(series.notes, ["\"x\": the mail says format=flowed and is not; taken as it is"]);
    bench.apply(&series).expect("it applies");

    let wrapped = diff.replace(" line 6", "line\n6");
    let text = bench.mbox(&[flowed(&wrapped)]).expect_err("damaged").to_string();
    assert!(text.contains("patch 1/1 \"x\" is damaged"), "{text}");
    assert!(text.contains("\"line\": it begins with none of blank, + and -"), "{text}");
    assert!(text.contains("wraps lines"), "{text}");
}

#[test]
fn patch_that_does_not_fit_says_where_and_why() {
    let bench = Bench::new();
    let first = mail("[PATCH 1/2] first", &change("block/bsg.c", 5, "x"));
    let diff =
        [change("block/other.c", 5, "y"), change("block/bsg.c", 15, "z").split_off(0)].concat();
    let diff = diff.replace(" line 14", " line 14 as it was").replace(" line 13", " line 13 too");
    let diff = diff.replace(" line 16", " line 16 too").replace(" line 17", " line 17 too");
    let second = mail("[PATCH 2/2] second", &diff);
    let series = bench.mbox(&[first, second]).expect("a series");
    let error = bench.apply(&series).expect_err("it does not fit");
    assert_eq!(
        error.to_string(),
        "patch 2/2 \"second\" (2 of 2) does not apply: block/bsg.c is different at its hunk 1 (line 12)\n\
         \x20 the patch expects:\n    line 13 too\n    line 14 as it was\n    line 15\n    line 16 too\n\
         \x20 the file has at line 13:\n    line 13\n    line 14\n    line 15\n    line 16\n\
         choose the kernel it was made for with --base, or give a tree with --kernel-tree"
    );
}

/// What a person compares the patch with is the file as the patches before have left it.
#[test]
fn patch_that_does_not_fit_is_shown_beside_what_the_ones_before_made() {
    let bench = Bench::new();
    let first = mail("[PATCH 1/2] first", &change("block/bsg.c", 10, "made by the first"));
    let second = mail("[PATCH 2/2] second", &change("block/bsg.c", 10, "\tx"));
    let series = bench.mbox(&[first, second]).expect("a series");
    let text = bench.apply(&series).expect_err("it does not fit").to_string();
    let shown = "the patch expects:\n    line 10\n    line 11\n    line 12\n    line 13\n  the file \
                 has at line 10:\n    made by the first\n    line 11\n    line 12\n    line 13\n";
    assert!(text.contains(shown), "{text}");
}

/// Another file has a hunk at the same line, the file a hunk before; and the file has likenesses in
/// two other places, one further away, one of nothing but braces.
#[test]
fn failing_hunk_is_shown_beside_the_place_it_was_made_for() {
    let bench = Bench::new();
    let mut lines: Vec<String> = (1..=60).map(|n| format!("line {n}")).collect();
    for (at, block) in [
        (5, ["alpha", "q", "q", "q", "z"]),
        (40, ["p", "{", "", "{", "z"]),
        (30, ["alpha", "q", "q", "q", "z"]),
        (50, ["alpha", "q", "q", "q", "z"]),
    ] {
        lines.splice(at - 1..at + 4, block.map(str::to_owned));
    }
    bench.write("tree/block/long.c", lines.join("\n"));
    bench.write("tree/block/other.c", lines.join("\n"));
    let hunk = |old: &str| format!("@@ -28,7 +28,7 @@\n line 28\n-line 29\n+x\n{old}");
    let text = format!(
        "--- a/block/other.c\n+++ b/block/other.c\n{}--- a/block/long.c\n+++ b/block/long.c\n\
         @@ -13,3 +13,3 @@\n line 13\n-line 14\n+x\n line 15\n{}",
        hunk(" alpha\n q\n q\n q\n z\n"),
        hunk(" alpha\n {\n \n {\n delta\n")
            .replace("line 28", "gone")
            .replace("line 29", "gone too"),
    );
    let error = bench.patch(&text).expect_err("it does not fit");
    let ApplyError::DoesNotApply { reason, .. } = error else { panic!("{error}") };
    let Reason::Differs { file, hunk, line, found, .. } = *reason else { panic!("{reason}") };
    assert_eq!((file.as_str(), hunk, line), ("block/long.c", 2, 28));
    let (line, lines) = found.expect("a likeness");
    assert_eq!((line, lines[0].as_str()), (28, "line 28"));
}

#[test]
fn reason_is_told_from_its_likes() {
    let bench = Bench::new();
    let told = |diff: &str| bench.patch(diff).expect_err("it does not fit").to_string();
    let gone = told(&change("block/gone.c", 5, "x"));
    assert!(gone.contains("it changes block/gone.c, which the tree does not have"), "{gone}");
    let there = told("--- /dev/null\n+++ b/block/bsg.c\n@@ -0,0 +1 @@\n+x\n");
    assert!(there.contains("it adds block/bsg.c, which the tree has already"), "{there}");
    let applied = told(&change("block/bsg.c", 5, "x").replace("-line 5\n+x", "-x\n+line 5"));
    assert!(applied.contains("its change is in the tree already"), "{applied}");
    assert!(applied.contains("choose an older kernel"), "{applied}");
    let alien =
        told("--- a/block/bsg.c\n+++ b/block/bsg.c\n@@ -3,2 +3,2 @@\n unlike\n-anything\n+x\n");
    assert!(alien.contains("the file has nothing like it"), "{alien}");

    let hint = |text: String| {
        bench
            .apply(&bench.mbox(&[text]).expect("a series"))
            .expect_err("it does not fit")
            .to_string()
    };
    let gone = change("block/gone.c", 5, "x");
    let first = [mail("[PATCH 1/2] x", &gone), mail("[PATCH 2/2] y", &gone)];
    let first = bench.apply(&bench.mbox(&first).expect("a series")).expect_err("it does not fit");
    let (told, hint_of_first) = ("patch 1/2 \"x\" (1 of 2) does not apply", "choose the kernel it");
    let first = first.to_string();
    assert!(first.starts_with(told) && first.contains(hint_of_first), "{first}");
    let later = hint(mail("[PATCH 2/3] x", &gone));
    assert!(later.contains("the patches before 2/3 are not there"), "{later}");
    let based = hint(mail("[PATCH] x", &format!("{gone}\nbase-commit: 0123456789ab\n")));
    assert!(based.contains("made on commit 0123456789ab"), "{based}");
}

#[test]
fn moved_and_fuzzy_hunks_apply_and_are_noted() {
    let bench = Bench::new();
    let diff = change("block/bsg.c", 10, "x");
    let noted = |diff: &str, expected: &str| {
        let applied = bench.patch(diff).expect(expected);
        assert_eq!(patched(&applied, "block/bsg.c"), twenty().replace("line 10\n", "x\n"));
        assert!(applied.notes.iter().any(|note| note.contains(expected)), "{:?}", applied.notes);
    };
    assert_eq!(bench.patch(&diff).expect("to the letter").notes, Vec::<String>::new());
    noted(&diff.replace("@@ -7,7 +7,7", "@@ -3,7 +3,7"), "1 hunks have moved");
    noted(&diff.replace(" line 7\n", " line seven\n"), "two lines of context");
    noted(
        &diff.replace(" line 7\n", " line seven\n").replace(" line 8\n", " line eight\n"),
        "one line of context",
    );
    noted(&diff.replace(" line 7\n", "  line\t7\n"), "two lines of context");
    noted(&diff.replace(" line 9\n", " line\t9\n"), "blanks of the context differ");
    noted(&diff.replace("@@ -7,7 +7,7", "@@ -7,6 +7,8"), "line counts of its hunks are wrong");
    let worn = diff.replace("@@ -7,7 +7,7", "@@ -7,6 +7,8").replace(" line 7\n", " seven\n");
    let worn = worn.replace(" line 8\n", " eight\n").replace(" line 9\n", " line\t9\n");
    noted(&worn, "little of the context fits");
}

#[test]
fn signature_of_a_mail_is_no_removed_line() {
    let bench = Bench::new();
    let diff = change("block/bsg.c", 10, "x").replace("@@ -7,7 +7,7", "@@ -7,8 +7,8");
    let series = bench.mbox(&[mail("[PATCH] x", &diff)]).expect("a series");
    let applied = bench.apply(&series).expect("it applies");
    assert_eq!(patched(&applied, "block/bsg.c"), twenty().replace("line 10\n", "x\n"));
}

#[test]
fn patch_stays_inside_the_tree() {
    let bench = Bench::new();
    let outside = bench.write("outside/x.c", twenty());
    let tree = bench.dir.path().join("tree");
    std::os::unix::fs::symlink("../outside", tree.join("link")).expect("link");
    for (file, told) in [
        ("../outside/x.c", "lies outside the tree"),
        ("block/../../outside/x.c", "lies outside the tree"),
        ("/outside/x.c", "lies outside the tree"),
        ("link/x.c", "lies behind a symbolic link"),
        (".git/config", "belongs to git"),
        ("block/bsg.c/x.c", "lies below a file"),
        ("block", "is a directory"),
    ] {
        let error = bench.patch(&change(file, 5, "x")).expect_err(told).to_string();
        assert!(error.contains(told), "{file}: {error}");
    }
    // The link comes with the series itself.
    let link = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n\
                +../outside\n\\ No newline at end of file\n";
    let both = [mail("[PATCH 1/2] a", link), mail("[PATCH 2/2] b", &change("l/x.c", 5, "x"))];
    let error =
        bench.apply(&bench.mbox(&both).expect("a series")).expect_err("refused").to_string();
    assert!(error.contains("2 of 2"), "{error}");
    assert_eq!(fs::read_to_string(outside).expect("read"), twenty());
}

#[test]
fn files_come_go_and_move() {
    let bench = Bench::new();
    let text = format!(
        "diff --git a/block/other.c b/fs/moved.c\nsimilarity index 90%\nrename from block/other.c\n\
         rename to fs/moved.c\n{}diff --git a/block/bsg.c b/block/bsg.c\ndeleted file mode 100644\n\
         --- a/block/bsg.c\n+++ /dev/null\n@@ -1,20 +0,0 @@\n{}diff --git a/run.sh b/run.sh\n\
         new file mode 100755\n--- /dev/null\n+++ b/run.sh\n@@ -0,0 +1 @@\n+true\n",
        change("x", 5, "x")
            .split_once('\n')
            .expect("lines")
            .1
            .split_once('\n')
            .expect("lines")
            .1
            .replace("a/x", "a/block/other.c")
            .replace("b/x", "b/fs/moved.c"),
        twenty().replace("line", "-line"),
    );
    let applied = bench.patch(&text).expect("it applies");
    assert_eq!(applied.overlay.files, [Path::new("fs/moved.c"), Path::new("run.sh")]);
    assert_eq!(applied.overlay.removed, [Path::new("block/bsg.c"), Path::new("block/other.c")]);
    assert_eq!(patched(&applied, "fs/moved.c"), twenty().replace("line 5\n", "x\n"));
    let mode = fs::metadata(applied.overlay.root.join("run.sh")).expect("metadata").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);
}

#[test]
fn links_and_modes_are_kept_and_what_came_and_went_is_nothing() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(tree.join("block/bsg.c"), executable).expect("chmod");
    std::os::unix::fs::symlink("old", tree.join("link")).expect("link");
    let no_newline = "\\ No newline at end of file\n";
    let patches = [
        change("block/bsg.c", 5, "x"),
        format!(
            "diff --git a/link b/link\nindex 1..2 120000\n--- a/link\n+++ b/link\n@@ -1 +1 @@\n\
             -old\n{no_newline}+new\n{no_newline}"
        ),
        "diff --git a/t b/t\nnew file mode 100644\n--- /dev/null\n+++ b/t\n@@ -0,0 +1 @@\n+x\n"
            .to_owned(),
        "diff --git a/t b/t\ndeleted file mode 100644\n--- a/t\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
            .to_owned(),
    ];
    let mails: Vec<String> =
        (1..).zip(&patches).map(|(n, diff)| mail(&format!("[PATCH {n}/4] x"), diff)).collect();
    let applied = bench.apply(&bench.mbox(&mails).expect("a series")).expect("it applies");
    assert_eq!(applied.overlay.files, [Path::new("block/bsg.c"), Path::new("link")]);
    assert_eq!(applied.overlay.removed, Vec::<PathBuf>::new());
    let root = &applied.overlay.root;
    assert_eq!(fs::read_link(root.join("link")).expect("a link"), Path::new("new"));
    let mode = fs::metadata(root.join("block/bsg.c")).expect("metadata").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);
}

/// `git apply` in a repository passes over files outside of it, and reads its configuration.
#[test]
fn repository_around_the_tree_does_not_matter() {
    let bench = Bench::new();
    let init =
        std::process::Command::new("git").arg("init").arg("-q").arg(bench.dir.path()).status();
    assert!(init.expect("git runs").success());
    let dir = git::command(&bench.dir.path().join("tree"))
        .args(["rev-parse", "--git-dir"])
        .output()
        .expect("git runs");
    assert!(!dir.status.success(), "it found the repository: {dir:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_read_or_refused(
        head in prop_oneof![
            Just(String::new()),
            Just(mail("[PATCH 1/2] x", "")),
            Just("From: a\nSubject: [PATCH] b\n\n".to_owned()),
            Just("Content-Type: multipart/mixed; boundary=b\nSubject: x\n\n--b\n".to_owned()),
            Just(change("block/bsg.c", 5, "x")),
        ],
        tail in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "(From |@@ -[0-9]{1,20},9 \\+1 @@|[-+ ]{1,4}|diff --git a/x b/x|\n){0,20}"
                .prop_map(String::into_bytes),
        ],
        cut in 0..2000_usize,
    ) {
        let bench = Bench::new();
        let mut bytes = head.into_bytes();
        bytes.truncate(cut);
        bytes.extend(tail);
        // What is read can be applied or is refused, too.
        if let Ok(series) = read(&bench.write("fuzz", &bytes)) {
            prop_assert!(!series.patches.is_empty());
            let _ = bench.apply(&series);
        }
    }

    /// What git makes of two versions of a file turns one into the other, and back.
    #[test]
    fn difference_applied_is_the_other_version(
        old in prop::collection::vec("[ab]{0,2}", 1..40),
        new in prop::collection::vec("[ab]{0,2}", 1..40),
    ) {
        prop_assume!(old != new);
        let bench = Bench::new();
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        for (name, lines) in [("a/block/bsg.c", &old), ("b/block/bsg.c", &new), ("tree/block/bsg.c", &old)] {
            bench.write(name, text(lines));
        }
        let output = git::command(bench.dir.path())
            .args(["diff", "--no-index", "--no-prefix", "a", "b"]).output().expect("git runs");
        let diff = String::from_utf8(output.stdout).expect("UTF-8");
        let series = bench.mbox(&[mail("[PATCH] x", &diff)]).expect("a series");
        prop_assert_eq!(patched(&bench.apply(&series).expect("it applies"), "block/bsg.c"), text(&new));
    }
}
