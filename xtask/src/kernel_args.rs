//! The arguments that say which kernel is booted, for every task that boots one.

use std::path::PathBuf;

use anyhow::ensure;
use bench::vm_test::Subject;
use kernel::{image::ImageFiles, request::Wanted, tree::Tree};

/// Which kernel.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KernelArgs {
    /// Kernel to boot: a name of images/kernels.toml, a version (7.2.9, 7.2), or the path of a bzImage
    /// or vmlinux.
    #[arg(long, default_value = "stock", value_name = "NAME|VERSION|FILE")]
    kernel: String,

    /// Build and boot this kernel tree, which is never written to.
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    kernel_tree: Option<PathBuf>,

    /// Configuration of the tree or image [default: its own]; `bench` is the bench's own small one.
    #[arg(long, value_name = "FILE")]
    kernel_config: Option<PathBuf>,

    /// Word for the tree's make, for example LLVM=1; O=DIR builds there instead of in the cache.
    #[arg(long, value_name = "VARIABLE=VALUE", requires = "kernel_tree")]
    make: Vec<String>,

    /// Apply a posted patch series (an mbox, a patch, a directory) to a copy of the base, build both, and
    /// tell what the series fixed or broke.
    #[arg(long, value_name = "FILE|DIR", conflicts_with_all = ["kernel", "compare"])]
    series: Option<PathBuf>,

    /// What the series is applied to: a built kernel's NAME or the DIR of a tree [default: the tree of
    /// --kernel-tree, or `source`].
    #[arg(long, value_name = "NAME|DIR", requires = "series", conflicts_with = "kernel_tree")]
    base: Option<String>,

    /// Run on kernel A, then on kernel B, and tell what B does otherwise; each a NAME, VERSION, FILE or
    /// the DIR of a tree.
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with_all = ["kernel", "kernel_tree"])]
    compare: Vec<String>,

    /// Modules of the kernel image, as `make modules_install` makes them.
    #[arg(long, value_name = "DIR", conflicts_with = "kernel_tree")]
    modules: Option<PathBuf>,
}

impl KernelArgs {
    /// What they want tested.
    pub(crate) fn subject(&self) -> anyhow::Result<Subject> {
        if let Some(posting) = &self.series {
            let base = match (&self.base, &self.kernel_tree) {
                (Some(word), _) => self.word(word)?,
                (None, Some(_)) => self.wanted()?,
                (None, None) => self.word("source")?,
            };
            let (posting, boxed) = (posting.clone(), Box::new(base.clone()));
            return Ok(Subject::Change(base, Wanted::Series { posting, base: boxed }));
        }
        match self.compare.as_slice() {
            [before, after] => {
                let [before, after] = [before, after].map(|word| self.word(word));
                Ok(Subject::Change(before?, after?))
            }
            _ => Ok(Subject::Kernel(self.wanted()?)),
        }
    }

    /// The kernel they mean.
    pub(crate) fn wanted(&self) -> anyhow::Result<Wanted> {
        if let Some(word) = self.make.iter().find(|word| !word.contains('=')) {
            anyhow::bail!("--make {word}: give VARIABLE=VALUE");
        }
        let config = self.kernel_config.clone();
        if let Some(dir) = &self.kernel_tree {
            let variables = self.make.clone();
            return Ok(Wanted::Tree(Tree { dir: dir.clone(), variables, config }));
        }
        self.word(&self.kernel)
    }

    /// The kernel that one word means.
    fn word(&self, word: &str) -> anyhow::Result<Wanted> {
        let config = self.kernel_config.clone();
        match Wanted::of_word(word) {
            Wanted::Image(ImageFiles { image, .. }) => {
                Ok(Wanted::Image(ImageFiles { image, modules: self.modules.clone(), config }))
            }
            Wanted::Tree(tree) => Ok(Wanted::Tree(Tree { config, ..tree })),
            named => {
                ensure!(
                    config.is_none() && self.modules.is_none(),
                    "--kernel-config and --modules belong to a tree or an image; {word} has its own"
                );
                Ok(named)
            }
        }
    }

    /// The arguments as they were given, to be typed again.
    pub(crate) fn words(&self) -> String {
        let mut words = String::new();
        let mut add = |name: &str, value: String| words.push_str(&format!(" --{name} {value}"));
        if self.kernel != "stock" {
            add("kernel", self.kernel.clone());
        }
        let paths = [
            ("kernel-tree", &self.kernel_tree),
            ("kernel-config", &self.kernel_config),
            ("modules", &self.modules),
            ("series", &self.series),
        ];
        for (name, path) in paths {
            if let Some(path) = path {
                add(name, path.display().to_string());
            }
        }
        for word in &self.make {
            add("make", word.clone());
        }
        if let Some(base) = &self.base {
            add("base", base.clone());
        }
        if let [before, after] = self.compare.as_slice() {
            add("compare", format!("{before} {after}"));
        }
        words
    }
}
