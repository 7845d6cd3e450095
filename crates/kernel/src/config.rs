//! A kernel's configuration, and fragments that say what one should be.
//!
//! Both have the syntax of `.config` (`scripts/kconfig/confdata.c:conf_read_simple`): a symbol per
//! line, `CONFIG_X=y`, `=m`, `=n`, a string in quotes, a number, or `# CONFIG_X is not set`. Other
//! comments and empty lines mean nothing. A line that is none of these is an error here, where
//! kconfig only warns.

use std::{collections::BTreeMap, fmt};

/// A line that is no line of a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file}:{line}: {text:?} sets nothing; a line is CONFIG_X=y, =m, =n, =\"text\", =123, =0x7b, or \
     # CONFIG_X is not set"
)]
pub struct ParseError {
    /// The file, as it was named to the parser.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

/// What a symbol is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `=y`: built in.
    Yes,
    /// `=m`: a module.
    Module,
    /// `=n`, or not set, or not there at all.
    No,
    /// A number, or a string with its quotes and escapes, as written.
    Text(String),
}

impl Value {
    /// What stands behind the `=`.
    fn parse(text: &str) -> Option<Value> {
        Some(match text {
            "y" => Value::Yes,
            "m" => Value::Module,
            "n" => Value::No,
            _ if is_string(text) || is_number(text) => Value::Text(text.to_owned()),
            _ => return None,
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Value::Yes => "y",
            Value::Module => "m",
            Value::No => "n",
            Value::Text(text) => text,
        })
    }
}

/// Whether `text` is one string in quotes, in which `\` quotes the next character.
fn is_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return false;
    };
    let mut is_quoted = false;
    for character in inner.chars() {
        match character {
            _ if is_quoted => is_quoted = false,
            '\\' => is_quoted = true,
            '"' => return false,
            _ => {}
        }
    }
    !is_quoted
}

fn is_number(text: &str) -> bool {
    let is_all = |text: &str, is_digit: fn(&u8) -> bool| {
        !text.is_empty() && text.bytes().all(|b| is_digit(&b))
    };
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => is_all(hex, u8::is_ascii_hexdigit),
        None => is_all(text.strip_prefix('-').unwrap_or(text), u8::is_ascii_digit),
    }
}

/// `CONFIG_X=y`: a symbol with its prefix, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// For example `CONFIG_BLK_DEV_BSG`.
    pub symbol: String,
    /// What it is set to.
    pub value: Value,
}

impl Setting {
    fn parse(line: &str) -> Option<Setting> {
        let not_set = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
        let (symbol, value) = match not_set {
            Some(symbol) => (symbol, Value::No),
            None => {
                let (symbol, value) = line.split_once('=')?;
                (symbol, Value::parse(value)?)
            }
        };
        let name = symbol.strip_prefix("CONFIG_")?;
        let is_symbol =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_symbol.then(|| Setting { symbol: symbol.to_owned(), value })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::No => write!(f, "# {} is not set", self.symbol),
            value => write!(f, "{}={value}", self.symbol),
        }
    }
}

/// The settings of a text in order.
fn settings(file: &str, text: &str) -> Result<Vec<Setting>, ParseError> {
    let mut settings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        match Setting::parse(line) {
            Some(setting) => settings.push(setting),
            None if line.is_empty() || line.starts_with('#') => {}
            None => {
                let file = file.to_owned();
                return Err(ParseError { file, line: number, text: line.to_owned() });
            }
        }
    }
    Ok(settings)
}

/// The configuration of a kernel: its `.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, Value>,
}

impl Config {
    /// Reads a `.config`; `file` names it in errors. Of a symbol set twice the last counts, as in
    /// kconfig.
    pub fn parse(file: &str, text: &str) -> Result<Config, ParseError> {
        let settings = settings(file, text)?;
        Ok(Config { values: settings.into_iter().map(|s| (s.symbol, s.value)).collect() })
    }

    /// What `CONFIG_X` is set to: [`Value::No`] if the text does not name it.
    pub fn get(&self, symbol: &str) -> &Value {
        self.values.get(symbol).unwrap_or(&Value::No)
    }

    /// Every symbol the text names, with its value.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(symbol, value)| (symbol.as_str(), value))
    }

    /// Whether `CONFIG_X` is built in or a module.
    pub fn has(&self, symbol: &str) -> bool {
        matches!(self.get(symbol), Value::Yes | Value::Module)
    }
}

/// A part of a configuration: what some symbols should be set to, each once, in the order of the text.
///
/// [`Display`](fmt::Display) writes it as a text kconfig reads, for example as `KCONFIG_ALLCONFIG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The file it came from, or the files, joined by `+`.
    pub name: String,
    /// What it asks for.
    pub settings: Vec<Setting>,
}

impl Fragment {
    /// Reads a fragment; `name` is its file. Of a symbol set twice the last counts.
    pub fn parse(name: &str, text: &str) -> Result<Fragment, ParseError> {
        let mut fragment = Fragment { name: name.to_owned(), settings: Vec::new() };
        for setting in settings(name, text)? {
            fragment.set(setting);
        }
        Ok(fragment)
    }

    /// What it asks `CONFIG_X` to be, if it does.
    pub fn get(&self, symbol: &str) -> Option<&Value> {
        self.settings.iter().find(|s| s.symbol == symbol).map(|setting| &setting.value)
    }

    /// Adds a setting, and returns the value it replaces if that is another.
    fn set(&mut self, setting: Setting) -> Option<Value> {
        match self.settings.iter_mut().find(|earlier| earlier.symbol == setting.symbol) {
            Some(earlier) if earlier.value == setting.value => None,
            Some(earlier) => Some(std::mem::replace(&mut earlier.value, setting.value)),
            None => {
                self.settings.push(setting);
                None
            }
        }
    }
}

impl fmt::Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.iter().try_for_each(|setting| writeln!(f, "{setting}"))
    }
}

/// Two fragments want different values of one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The symbol.
    pub symbol: String,
    /// What the fragments before wanted.
    pub earlier: Value,
    /// What counts: the value of the later one.
    pub later: Value,
    /// The fragment that has the last word.
    pub fragment: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { symbol, earlier, later, fragment } = self;
        write!(f, "{fragment} sets {symbol} to {later}, an earlier fragment to {earlier}")
    }
}

/// Makes one fragment of several. The later one wins; where it changed something, that is told.
pub fn merge<'a>(fragments: impl IntoIterator<Item = &'a Fragment>) -> (Fragment, Vec<Conflict>) {
    let mut merged = Fragment { name: String::new(), settings: Vec::new() };
    let mut conflicts = Vec::new();
    for fragment in fragments {
        if !merged.name.is_empty() {
            merged.name.push('+');
        }
        merged.name.push_str(&fragment.name);
        for setting in &fragment.settings {
            if let Some(earlier) = merged.set(setting.clone()) {
                conflicts.push(Conflict {
                    symbol: setting.symbol.clone(),
                    earlier,
                    later: setting.value.clone(),
                    fragment: fragment.name.clone(),
                });
            }
        }
    }
    (merged, conflicts)
}

/// Whether a module is as good as what is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modules {
    /// What a fragment wants built in has to be.
    NotEnough,
    /// Where a fragment says `=y`, `=m` will do. One that says `=m` means it.
    WillDo,
}

/// A symbol that is not what a fragment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The symbol.
    pub symbol: String,
    /// What the fragment asks for.
    pub wanted: Value,
    /// What the configuration has.
    pub found: Value,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmet { symbol, wanted, found } = self;
        match found {
            Value::No => write!(f, "{symbol}={wanted} (it is not set)"),
            found => write!(f, "{symbol}={wanted} (it is {found})"),
        }
    }
}

/// What `config` lacks of `fragment`, in the fragment's order.
pub fn unmet(config: &Config, fragment: &Fragment, modules: Modules) -> Vec<Unmet> {
    let is_met = |wanted: &Value, found: &Value| {
        found == wanted
            || (modules == Modules::WillDo && (wanted, found) == (&Value::Yes, &Value::Module))
    };
    fragment
        .settings
        .iter()
        .map(|setting| (setting, config.get(&setting.symbol)))
        .filter(|(setting, found)| !is_met(&setting.value, found))
        .map(|(Setting { symbol, value }, found)| Unmet {
            symbol: symbol.clone(),
            wanted: value.clone(),
            found: found.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
# a comment
CONFIG_A=y

CONFIG_B=m
# CONFIG_C is not set
CONFIG_D=n
CONFIG_E=\"a \\\"b\\\" # c\"
CONFIG_F=-12
CONFIG_G=0x7B
#CONFIG_H=y
";

    fn fragment(text: &str) -> Fragment {
        Fragment::parse("f", text).expect("a fragment")
    }

    fn config(text: &str) -> Config {
        Config::parse("c", text).expect("a configuration")
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let config = config(TEXT);
        for (symbol, value) in [
            ("CONFIG_A", "y"),
            ("CONFIG_B", "m"),
            ("CONFIG_C", "n"),
            ("CONFIG_D", "n"),
            ("CONFIG_E", "\"a \\\"b\\\" # c\""),
            ("CONFIG_F", "-12"),
            ("CONFIG_G", "0x7B"),
            ("CONFIG_H", "n"),
            ("CONFIG_", "n"),
        ] {
            assert_eq!(config.get(symbol).to_string(), value, "{symbol}");
        }
        assert!(config.has("CONFIG_A") && config.has("CONFIG_B"));
        assert!(!config.has("CONFIG_C") && !config.has("CONFIG_E") && !config.has("CONFIG_H"));
    }

    #[test]
    fn line_that_sets_nothing_is_named() {
        for bad in [
            "CONFIG_A",
            "CONFIG_A=",
            "CONFIG_A=yes",
            "CONFIG_A=\"x",
            "CONFIG_A=\"x\\\"",
            "CONFIG_A=\"x\"y\"",
            "CONFIG_A=0x",
            "CONFIG_A=-",
            "A=y",
            "CONFIG_=y",
            "CONFIG_A-B=y",
            "CONFIG_A =y",
            "<<<<<<< HEAD",
        ] {
            let error = Fragment::parse("x.config", &format!("CONFIG_Z=y\n{bad}\n"));
            let error = error.expect_err(bad);
            assert_eq!((error.line, error.text.as_str()), (2, bad));
            assert!(error.to_string().starts_with("x.config:2: "), "{error}");
        }
    }

    #[test]
    fn last_setting_of_a_symbol_counts() {
        assert_eq!(config("CONFIG_A=y\nCONFIG_A=m\n").get("CONFIG_A"), &Value::Module);
        assert_eq!(fragment("CONFIG_A=y\nCONFIG_A=m\n"), fragment("CONFIG_A=m\n"));
    }

    #[test]
    fn later_fragment_wins_and_that_is_told() {
        let first = Fragment::parse("one", "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=m\n").expect("one");
        let second = Fragment::parse("two", "CONFIG_B=n\nCONFIG_C=m\nCONFIG_D=y\n").expect("two");
        let (merged, conflicts) = merge([&first, &second]);
        assert_eq!(merged.name, "one+two");
        assert_eq!(
            merged.to_string(),
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=y\n"
        );
        let told: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["two sets CONFIG_B to n, an earlier fragment to y"]);
    }

    #[test]
    fn module_will_do_only_where_it_may() {
        let wanted = fragment("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=n\nCONFIG_E=7\n");
        let found = config("CONFIG_A=m\nCONFIG_C=y\nCONFIG_D=m\nCONFIG_E=8\n");
        let told = |modules| -> Vec<String> {
            unmet(&found, &wanted, modules).iter().map(ToString::to_string).collect()
        };
        let others = [
            "CONFIG_B=y (it is not set)",
            "CONFIG_C=m (it is y)",
            "CONFIG_D=n (it is m)",
            "CONFIG_E=7 (it is 8)",
        ];
        assert_eq!(told(Modules::WillDo), others);
        assert_eq!(told(Modules::NotEnough)[0], "CONFIG_A=y (it is m)");
        assert_eq!(told(Modules::NotEnough)[1..], others);
    }

    #[test]
    fn nothing_is_unmet_in_what_was_asked_for() {
        let text = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"\"\n";
        assert_eq!(unmet(&config(text), &fragment(text), Modules::NotEnough), []);
        assert_eq!(unmet(&config(""), &fragment("CONFIG_B=n\n"), Modules::NotEnough), []);
    }

    #[test]
    fn fragments_of_this_repository_can_be_read_and_do_not_conflict() {
        let dir =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/kernel/config");
        let read = |name: &str| {
            let text = std::fs::read_to_string(dir.join(name)).expect("the fragment can be read");
            Fragment::parse(name, &text).expect("a fragment")
        };
        let all = ["required.config", "suite.config", "machine.config"].map(read);
        let (merged, conflicts) = merge(&all);
        assert_eq!(conflicts, []);
        assert_eq!(merged.get("CONFIG_BLK_DEV_BSG"), Some(&Value::Yes));
        assert_eq!(merged.get("CONFIG_SCSI_DEBUG"), Some(&Value::Module));
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Yes),
            Just(Value::Module),
            Just(Value::No),
            any::<i64>().prop_map(|number| Value::Text(number.to_string())),
            any::<u64>().prop_map(|number| Value::Text(format!("{number:#x}"))),
            "[ -~]{0,20}".prop_map(|text| {
                let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                Value::Text(format!("\"{quoted}\""))
            }),
        ]
    }

    proptest! {
        #[test]
        fn written_fragment_reads_back(
            settings in prop::collection::btree_map("CONFIG_[A-Z0-9_]{1,12}", value(), 0..20)
        ) {
            let settings =
                settings.into_iter().map(|(symbol, value)| Setting { symbol, value }).collect();
            let fragment = Fragment { name: "f".to_owned(), settings };
            prop_assert_eq!(Fragment::parse("f", &fragment.to_string()), Ok(fragment));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
            let read = Fragment::parse("f", &text);
            if let Ok(fragment) = read {
                prop_assert!(Fragment::parse("f", &fragment.to_string()).is_ok());
            }
        }
    }
}
