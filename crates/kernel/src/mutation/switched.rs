//! All changes of a file in one text, of which the kernel's command line puts one in force.
//!
//! A changed function stands beside the original as another one, `NAME__mutant_N`; the original calls the
//! one whose number the kernel was booted with. A change outside of a function's braces cannot be made
//! this way.

use std::{collections::BTreeMap, ops::Range};

use super::edit::{CFile, Definition, Edit, EditError, last_word};

/// The word of the kernel's command line, and the variable that says which change is in force; 0 is none.
pub(super) const SWITCH: &str = "sensecheck_mutant";

/// What every file with changes has before its first line. The variable has no header of its own.
const DECLARATION: &str = "extern unsigned int sensecheck_mutant;\n";

/// What stands after the last line of one file that is part of every kernel.
pub(super) const SETUP: &str = "
unsigned int sensecheck_mutant __ro_after_init;
EXPORT_SYMBOL(sensecheck_mutant);

static int __init sensecheck_mutant_setup(char *text)
{
	return kstrtouint(text, 0, &sensecheck_mutant);
}
early_param(\"sensecheck_mutant\", sensecheck_mutant_setup);
";

/// A function with its changes, each with its number and place.
struct Function<'a> {
    definition: &'a Definition,
    changes: Vec<(u32, &'a Edit, usize)>,
}

/// A file with all of its changes.
#[derive(Debug, Default)]
pub(super) struct Switched {
    pub(super) text: String,
    /// How many lines the text has.
    len: usize,
    /// The lines, from 1, of each changed function, and the number of its change.
    lines: Vec<(Range<usize>, u32)>,
}

impl Switched {
    /// Makes `changes`, each with its number, in a file.
    pub(super) fn of(file: &CFile, changes: &[(u32, &Edit)]) -> Result<Switched, EditError> {
        let mut functions: BTreeMap<usize, Function<'_>> = BTreeMap::new();
        for (number, edit) in changes {
            let (definition, place) = file.place(edit)?;
            let function = functions
                .entry(definition.whole.start)
                .or_insert(Function { definition, changes: Vec::new() });
            function.changes.push((*number, edit, place));
        }
        let mut switched = Switched::default();
        switched.push([DECLARATION]);
        let mut done = 0;
        for function in functions.values() {
            let whole = &function.definition.whole;
            switched.push([&file.text[done..whole.start]]);
            switched.add(&file.text, function);
            done = whole.end;
        }
        switched.push([&file.text[done..]]);
        Ok(switched)
    }

    fn push<const N: usize>(&mut self, parts: [&str; N]) {
        for part in parts {
            self.text.push_str(part);
            self.len += part.matches('\n').count();
        }
    }

    /// The change that a line of the text belongs to, if one does.
    pub(super) fn change_at(&self, line: usize) -> Option<u32> {
        self.lines.iter().find(|(lines, _)| lines.contains(&line)).map(|(_, number)| *number)
    }

    /// Adds a function: its changed forms, and the original that chooses.
    fn add(&mut self, text: &str, function: &Function<'_>) {
        let Function { definition: Definition { whole, body, .. }, changes } = function;
        let head = Head::of(text, function.definition);
        let mut cases = String::new();
        for (number, edit, place) in changes {
            let first = self.len + 1;
            let (before, after) =
                (&text[body.start..*place], &text[place + edit.find.len()..whole.end]);
            let renamed = head.renamed(&changed_name(&head.name, *number));
            self.push([&renamed, before, &edit.replace, after, "\n"]);
            self.lines.push((first..self.len + 1, *number));
            cases.push_str(&head.case(*number));
        }
        self.push([&text[whole.start..body.start], "\tswitch (", SWITCH, ") {\n", &cases, "\t}\n"]);
        self.push([&text[body.start..whole.end]]);
    }
}

/// What is between a changed function's name and its number.
const MARK: &str = "__mutant_";

fn changed_name(name: &str, number: u32) -> String {
    format!("{name}{MARK}{number}")
}

/// The number of the changed function that a text names first.
pub(super) fn number_in(text: &str) -> Option<u32> {
    let (_, number) = text.split_once(MARK)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What comes before a function's body.
struct Head {
    name: String,
    /// What comes before the name: storage, attributes and type.
    before: String,
    /// What comes after the name, with the opening brace.
    after: String,
    /// The names of the parameters.
    parameters: Vec<String>,
}

impl Head {
    fn of(text: &str, definition: &Definition) -> Head {
        let head = &text[definition.whole.start..definition.body.start];
        let open = head.find('(').expect("a definition's name is before a parenthesis");
        let name = head[..open].rfind(&definition.name).expect("it was found there");
        let after = &head[name + definition.name.len()..];
        Head {
            name: definition.name.clone(),
            before: head[..name].to_owned(),
            after: after.to_owned(),
            parameters: parameters(after),
        }
    }

    /// The head of a function like this one that no other file calls.
    fn renamed(&self, name: &str) -> String {
        let is_static = self.before.split_whitespace().any(|word| word == "static");
        let storage = if is_static { "" } else { "static " };
        [storage, &self.before, name, &self.after].concat()
    }

    /// What hands a call on.
    fn case(&self, number: u32) -> String {
        let name = changed_name(&self.name, number);
        let call = format!("{name}({})", self.parameters.join(", "));
        if self.returns_nothing() {
            format!("\tcase {number}:\n\t\t{call};\n\t\treturn;\n")
        } else {
            format!("\tcase {number}:\n\t\treturn {call};\n")
        }
    }

    fn returns_nothing(&self) -> bool {
        !self.before.contains('*') && self.before.split_whitespace().any(|word| word == "void")
    }
}

/// The names in a list of parameters that begins `text`: of each the last word before an array's bounds,
/// or what a star and parentheses are around.
fn parameters(text: &str) -> Vec<String> {
    let (mut depth, mut start) = (0, 1);
    let mut declared = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            declared.push(&text[start..at]);
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    let name = |declared: &&str| {
        let inner = declared.split_once("(*").and_then(|(_, rest)| rest.split_once(')'));
        let name = inner.map_or(*declared, |(name, _)| name);
        last_word(name.split('[').next().unwrap_or_default()).to_owned()
    };
    declared.iter().map(name).filter(|name| !name.is_empty() && name != "void").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
int half(int a)
{
	return a / 2;
}

static void
set(struct thing *thing, const char __user *from, int (*of)[4])
{
	if (from)
		thing->a = 1;
}
";

    fn file() -> CFile {
        CFile::new("a.c", TEXT.to_owned())
    }

    fn edit(function: &str, find: &str, replace: &str) -> Edit {
        let [file, function, find, replace] = ["a.c", function, find, replace].map(str::to_owned);
        Edit { file, function, find, replace }
    }

    #[test]
    fn original_calls_the_changed_function_it_is_told_to() {
        let (first, second) = (edit("half", "/ 2", "/ 3"), edit("half", "a / 2", "a"));
        let switched = Switched::of(&file(), &[(7, &first), (9, &second)]).expect("made");
        let expected = "\
extern unsigned int sensecheck_mutant;
static int half__mutant_7(int a)
{
	return a / 3;
}

static int half__mutant_9(int a)
{
	return a;
}

int half(int a)
{
	switch (sensecheck_mutant) {
	case 7:
		return half__mutant_7(a);
	case 9:
		return half__mutant_9(a);
	}
	return a / 2;
}
";
        assert_eq!(switched.text, format!("{expected}{}", &TEXT[TEXT.find("\nstatic").unwrap()..]));
        let of = [1, 2, 5, 6, 7, 11, 12].map(|line| switched.change_at(line));
        assert_eq!(of, [None, Some(7), Some(7), Some(7), Some(9), Some(9), None]);
    }

    #[test]
    fn function_without_a_result_returns_after_the_call() {
        let change = edit("set", "= 1", "= 2");
        let switched = Switched::of(&file(), &[(1, &change)]).expect("made").text;
        let call = "\t\tset__mutant_1(thing, from, of);\n\t\treturn;\n";
        assert!(switched.contains(call), "{switched}");
        assert!(switched.contains("\nstatic void\nset__mutant_1(struct thing *"), "{switched}");
    }

    #[test]
    fn parameters_are_called_by_their_names() {
        let cases: [(&str, &[&str]); 3] = [
            ("(void)\n{", &[]),
            ("(int a,\n\t struct b *b) __must_hold(c)", &["a", "b"]),
            ("(u8 key[16], void (*done)(int, int), unsigned n)", &["key", "done", "n"]),
        ];
        for (list, names) in cases {
            assert_eq!(parameters(list), names, "{list}");
        }
    }

    #[test]
    fn change_without_its_place_is_refused() {
        let missing = Switched::of(&file(), &[(1, &edit("half", "/ 4", "/ 3"))]);
        let error = missing.expect_err("not there").to_string();
        assert_eq!(error, "a.c: half has \"/ 4\" 0 times, not once");
    }
}
