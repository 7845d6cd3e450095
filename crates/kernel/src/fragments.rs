//! The fragments of configuration in `images/kernel/config`, and what they ask of a kernel that was
//! configured by somebody else.

use std::{fs, path::Path};

use host::cache::at;

use crate::{
    Error,
    config::{Config, Fragment, Modules, merge, unmet},
};

/// Where the fragments are in a checkout.
const DIR: &str = "images/kernel/config";

/// What the bench and its tests look for in a configuration.
#[derive(Clone, Debug)]
pub struct Fragments {
    /// Without one of these no test runs.
    required: Fragment,
    /// Without one of these some tests are skipped.
    suite: Fragment,
}

impl Fragments {
    /// Reads those of a checkout.
    pub fn read(checkout: &Path) -> Result<Fragments, Error> {
        Ok(Fragments { required: read(checkout, "required")?, suite: read(checkout, "suite")? })
    }

    /// What `config` lacks of what the bench cannot work without.
    pub fn unmet_requirements(&self, config: &Config) -> Vec<String> {
        let unmet = unmet(config, &self.required, Modules::NotEnough);
        unmet.iter().map(ToString::to_string).collect()
    }

    /// What `config` lacks of what tests look at, in words.
    pub fn limits(&self, config: &Config) -> Option<String> {
        let unmet = unmet(config, &self.suite, Modules::WillDo);
        let symbols: Vec<String> = unmet.iter().map(ToString::to_string).collect();
        (!symbols.is_empty())
            .then(|| format!("tests will be skipped for lack of {}", symbols.join(", ")))
    }
}

/// The fragment `name` of a checkout.
fn read(checkout: &Path, name: &str) -> Result<Fragment, Error> {
    let path = checkout.join(DIR).join(format!("{name}.config"));
    let text = fs::read_to_string(&path).map_err(at("read", &path))?;
    Fragment::parse(&path.display().to_string(), &text)
        .map_err(|error| Error::Input { what: error.file.clone(), detail: error.to_string() })
}

/// The fragments `names` of a checkout, the later ones winning.
pub fn merged(checkout: &Path, names: &[String]) -> Result<Fragment, Error> {
    let fragments: Vec<Fragment> =
        names.iter().map(|name| read(checkout, name)).collect::<Result<_, _>>()?;
    let (mut fragment, _) = merge(&fragments);
    fragment.name = names.join("+");
    Ok(fragment)
}
