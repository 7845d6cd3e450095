//! Which mails of a thread are taken, where `series/tests.rs` does not go.

use std::slice::from_ref;

use crate::series::{
    ReadError, Series, read,
    tests::{Bench, change, mail, subjects},
};

/// A patch whose commit its author names.
fn based(subject: &str, commit: &str) -> String {
    mail(subject, &format!("{}\nbase-commit: {commit}\n", change("block/bsg.c", 5, "x")))
}

fn patch(subject: &str) -> String {
    mail(subject, &change("block/bsg.c", 5, "x"))
}

fn base_of(thread: &[String]) -> Option<String> {
    Bench::new().mbox(thread).expect("a series").base_commit
}

#[test]
fn base_commit_is_what_a_mail_of_the_newest_version_says() {
    let (old, new) = ("0000001", "0000002");
    let thread = [based("[PATCH v2 1/2] a", new), patch("[PATCH v2 2/2] b")];
    assert_eq!(base_of(&thread).as_deref(), Some(new));
    let thread = [&thread[..], &[based("[PATCH 1/1] a", old)]].concat();
    assert_eq!(base_of(&thread).as_deref(), Some(new));
    // The old version's says nothing of the new one.
    let thread = [patch("[PATCH v2 1/1] a"), based("[PATCH 1/1] a", old)];
    assert_eq!(base_of(&thread), None);
    // Nor does what somebody quotes.
    let thread = [patch("[PATCH 1/1] a"), based("Re: [PATCH 1/1] a", old)];
    assert_eq!(base_of(&thread), None);
}

#[test]
fn quilt_series_has_the_base_commit_of_its_patches() {
    let bench = Bench::new();
    bench.write("q/a.patch", patch("[PATCH] a"));
    bench.write("q/b.patch", based("[PATCH] b", "0123456789abcdef"));
    bench.write("q/series", "a.patch\nb.patch\n");
    let series = read(&bench.dir.path().join("q")).expect("a series");
    assert_eq!(series.base_commit.as_deref(), Some("0123456789abcdef"));
}

/// A mail of the list comes twice; two patches may have one title.
#[test]
fn patches_without_numbers_are_told_apart_by_what_they_change() {
    let bench = Bench::new();
    let [one, two] = [5, 10].map(|n| mail("[PATCH] fix", &change("block/bsg.c", n, "x")));
    let series = bench.mbox(&[one.clone(), two, one]).expect("a series");
    assert_eq!(subjects(&series), ["fix", "fix"]);
    assert_eq!(series.notes, Vec::<String>::new());
    bench.apply(&series).expect("both apply");
}

/// The part of the message between `has no patch` and the advice.
fn missing(thread: &[String]) -> String {
    let error = Bench::new().mbox(thread).expect_err("missing");
    assert!(matches!(error, ReadError::Missing { .. }), "{error}");
    let text = error.to_string();
    let (_, rest) = text.split_once("has no patch ").expect("what is missing");
    rest.split_once(';').expect("advice").0.to_owned()
}

#[test]
fn patch_without_a_diff_is_told_of_its_own_version_only() {
    let empty = |version| mail(&format!("[PATCH{version} 2/2] b"), "no diff\n");
    let thread = [patch("[PATCH v2 1/2] a"), empty("")];
    assert_eq!(missing(&thread), "2/2 of version 2");
    let thread = [patch("[PATCH v2 1/2] a"), empty(" v2")];
    assert_eq!(missing(&thread), "2/2 of version 2 (2/2: the mail has no diff)");
}

/// A series that grew while it was posted has as many as its largest number says.
#[test]
fn longest_count_of_a_version_holds() {
    assert_eq!(missing(&[patch("[PATCH 1/2] a"), patch("[PATCH 2/3] b")]), "3/3 of version 1");
}

#[test]
fn what_there_is_instead_of_patches_is_counted() {
    let found = |mails: &[String]| -> String {
        let error: Result<Series, ReadError> = Bench::new().mbox(mails);
        match error.expect_err("no patch") {
            ReadError::NoPatch { found, .. } => found,
            error => panic!("{error}"),
        }
    };
    let empty = mail("[PATCH 1/2] x", "no diff\n");
    assert_eq!(found(from_ref(&empty)), "1 patches without a diff");
    let thread = [empty, mail("hello", ""), mail("Re: hello", "")];
    assert_eq!(found(&thread), "1 answers, 1 patches without a diff, 1 other mails or files");
}
