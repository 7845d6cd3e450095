use super::*;

fn column(name: &str) -> Column {
    let [release, origin] = [format!("{name}+deb13"), format!("{name}-1")];
    Column { name: name.to_owned(), release, origin }
}

fn skip(reason: &str) -> Cell {
    Cell::Skip(reason.to_owned())
}

fn known(reason: &str) -> Cell {
    Cell::Known { reason: reason.to_owned(), kernel: ">=7.3, <7.4".to_owned() }
}

fn row(outcomes: [Cell; 3], tests: &[(&str, &[&str])]) -> Row {
    let cases = |cases: &[&str]| cases.iter().map(ToString::to_string).collect();
    let tests = tests.iter().map(|(function, list)| ((*function).to_owned(), cases(list)));
    Row { outcomes: outcomes.into(), tests: tests.collect() }
}

fn record() -> Record {
    let needs = || skip("needs Linux 7.1 or newer");
    Record {
        kernels: ["6.12.117", "7.2.12", "7.3.4"].map(column).into(),
        missing: vec!["7.0".parse().expect("a version")],
        rows: vec![
            row(
                [Cell::Pass, Cell::Pass, Cell::Pass],
                &[("bsg::same", &[""]), ("bsg::all", &["a", "b"])],
            ),
            row(
                [needs(), Cell::Pass, Cell::Pass],
                &[("bsg::ring::one", &[""]), ("bsg::ring::two", &["a", "b"])],
            ),
            row([needs(), needs(), needs()], &[("bsg::never::one", &[""])]),
            row(
                [Cell::Pass, Cell::Pass, known("data | is lost")],
                &[("ublk::short::write", &["a"])],
            ),
            row([Cell::Pass, Cell::Accident, Cell::Pass], &[("ublk::odd::it", &[""])]),
            row(
                [Cell::Pass, Cell::Pass, Cell::New("hang".to_owned())],
                &[("ublk::odd::new", &[""])],
            ),
        ],
    }
}

/// The lines of one section.
fn section<'a>(text: &'a str, title: &str) -> Vec<&'a str> {
    let start = text.find(&format!("{title}\n")).unwrap_or_else(|| panic!("no {title} in {text}"));
    let lines = text[start..].lines().skip(1);
    lines.take_while(|line| !line.starts_with('#')).filter(|line| !line.is_empty()).collect()
}

#[test]
fn kernels_are_counted_and_absent_ones_named() {
    let table = record().table();
    assert_eq!(
        section(&table, "## Releases")[2..],
        [
            "| 6.12.117 | `6.12.117+deb13` | 6.12.117-1 | 6 | 0 | 0 | 0 | 4 |",
            "| 7.2.12 | `7.2.12+deb13` | 7.2.12-1 | 8 | 0 | 0 | 1 | 1 |",
            "| 7.3.4 | `7.3.4+deb13` | 7.3.4-1 | 7 | 1 | 1 | 0 | 1 |",
            "10 tests, 4 of which end alike on each kernel.",
            "7.0 is not among them: the mirror had no kernel of the series.",
        ]
    );
}

#[test]
fn each_pair_of_neighbours_tells_what_changed_the_gravest_first() {
    let table = record().table();
    assert_eq!(
        section(&table, "### 6.12.117 → 7.2.12")[2..],
        [
            "| are otherwise than the test expects | 1 | `ublk::odd::it` |",
            "| run: needs Linux 7.1 or newer | 3 | `bsg::ring` 3 |",
            "6 tests end alike on both.",
        ]
    );
    assert_eq!(
        section(&table, "### 7.2.12 → 7.3.4")[2..],
        [
            "| **fail**, and nobody has looked into it: hang | 1 | `ublk::odd::new` |",
            "| **fail**: data \\| is lost | 1 | `ublk::short::write::a` |",
            "| are as the test expects | 1 | `ublk::odd::it` |",
            "7 tests end alike on both.",
        ]
    );
}

#[test]
fn reasons_are_told_once_with_the_kernels_they_hold_on() {
    let table = record().table();
    assert_eq!(
        section(&table, "## Known defects")[2..],
        ["| data \\| is lost (>=7.3, \\<7.4) | | | 1 | `ublk::short::write::a` |",]
    );
    assert_eq!(
        section(&table, "## Skipped")[2..],
        ["| needs Linux 7.1 or newer | 4 | 1 | 1 | `bsg::never` 1, `bsg::ring` 3 |",]
    );
}

#[test]
fn subjects_that_differ_show_how_many_of_their_tests_pass() {
    let table = record().table();
    assert_eq!(
        section(&table, "## Passed, by subject")[3..],
        [
            "| `bsg::ring` | 0 | 3 | 3 | 3 |",
            "| `ublk::odd` | 2 | 1 | 1 | 2 |",
            "| `ublk::short` | 1 | 1 | 0 | 1 |",
        ]
    );
}

#[test]
fn kernels_without_a_difference_are_told_to_have_none() {
    let mut record = record();
    record.rows.truncate(1);
    let table = record.table();
    assert_eq!(section(&table, "### 7.2.12 → 7.3.4"), ["No test tells them apart."]);
    for absent in ["## Known defects", "## Skipped", "## Passed, by subject"] {
        assert!(!table.contains(absent), "{absent}");
    }
}

#[test]
fn the_same_results_make_the_same_files() {
    let json = record().json();
    let back: Record = serde_json::from_str(&json).expect("what was written");
    assert_eq!(back, record());
    assert_eq!((back.json(), back.table()), (json, record().table()));
}

#[test]
fn a_test_that_is_skipped_for_another_reason_has_not_changed() {
    let [old, other] = ["needs Linux 7.1 or newer", "needs a parameter"].map(skip);
    assert_eq!(step(&old, &other), None);
    assert_eq!(step(&old, &Cell::Pass), Some(Step::Runs("needs Linux 7.1 or newer")));
    assert_eq!(step(&Cell::Pass, &other), Some(Step::Skipped("needs a parameter")));
}
