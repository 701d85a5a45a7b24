//! What children may use and see, as the flags by which this binary confines itself before it
//! becomes the child's program.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};

use nix::unistd::{Gid, Uid, User, geteuid};

use clipper_config::{ChildNetwork, Config, ContainersConfig, Landlock, ProcessConfig};

/// Variables that name folders of programs and libraries, several with `:` between them.
const LIBRARIES: [&str; 4] = ["VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "LD_LIBRARY_PATH"];

/// As whom children run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildUser {
    uid: u32,
    gid: u32,
    name: Option<String>,
    home: Option<PathBuf>,
}

/// Why `containers.user` cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoUser {
    #[error("containers.user: only a server that runs as root can start children as another user")]
    NotRoot,
    #[error("containers.user: there is no user {0:?}, and it is not UID:GID")]
    Unknown(String),
}

/// The bounds of all children.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    config: ContainersConfig,
    /// The server's own.
    hidden: Vec<PathBuf>,
    /// Where programs and their libraries are looked for.
    libraries: Vec<PathBuf>,
    user: Option<ChildUser>,
}

impl Bounds {
    /// Those of the configuration, which was read from `file`.
    ///
    /// # Errors
    /// The user is none.
    pub fn new(config: &Config, file: Option<&Path>) -> Result<Self, NoUser> {
        let own = [
            Some(&*config.data_dir),
            file,
            Some(&*config.tls.key),
            Some(&*config.rpc.keys),
            Some(&*config.rpc.curve_key),
            Some(&*config.access.keys_file),
        ];
        let own = own.into_iter().flatten().filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            config: config.containers.clone(),
            hidden: own.filter_map(|path| absolute(path).ok()).collect(),
            libraries: libraries(),
            user: ChildUser::find(&config.containers.user)?,
        })
    }

    /// As whom children run, if it is another user.
    pub(super) fn user(&self) -> Option<&ChildUser> {
        self.user.as_ref()
    }

    /// Flags for a child that has to read `seen` and connects to `port`; none if it is not bound.
    pub(super) fn flags(
        &self,
        own: Option<&ProcessConfig>,
        seen: &[PathBuf],
        port: Option<u16>,
    ) -> Vec<OsString> {
        let (all, unset) = (&self.config, ProcessConfig::default());
        let own = own.unwrap_or(&unset);
        let limits = [
            ("address-space-max-bytes", own.address_space_max_bytes, all.address_space_max_bytes),
            ("open-files-max", own.open_files_max, all.open_files_max),
            ("processes-max", own.processes_max, all.processes_max),
            ("cpu-seconds-max", own.cpu_seconds_max, all.cpu_seconds_max),
        ];
        let limits = limits.map(|(name, own, all)| (name, own.unwrap_or(all)));
        let limits = limits.into_iter().filter(|(_, limit)| *limit > 0);
        let mut flags: Vec<OsString> =
            limits.map(|(name, limit)| format!("--{name}={limit}").into()).collect();
        let user = self.user.as_ref();
        flags.extend(user.map(|user| format!("--user={}:{}", user.uid, user.gid).into()));
        let landlock = match own.landlock.unwrap_or(all.landlock) {
            Landlock::Off => return flags,
            Landlock::Try => "--landlock=try",
            Landlock::Required => "--landlock=required",
        };
        flags.push(landlock.into());
        let temporary = env::temp_dir();
        let read = all.read_paths.iter().chain(&own.read_paths).map(Path::new);
        let write = all.write_paths.iter().chain(&own.write_paths).map(Path::new);
        let seen = self.libraries.iter().chain(seen).map(PathBuf::as_path);
        flags.extend(seen.chain(read).map(|path| with_path("--read=", path)));
        flags
            .extend([&*temporary].into_iter().chain(write).map(|path| with_path("--write=", path)));
        flags.extend(self.hidden.iter().map(|path| with_path("--hide=", path)));
        if own.network.unwrap_or(all.network) == ChildNetwork::Server {
            flags.extend(port.map(|port| format!("--connect-port={port}").into()));
        }
        flags
    }
}

fn with_path(flag: &str, path: &Path) -> OsString {
    let mut text = OsString::from(flag);
    text.push(path);
    text
}

impl ChildUser {
    fn find(text: &str) -> Result<Option<Self>, NoUser> {
        if text.is_empty() {
            return Ok(None);
        }
        let unknown = || NoUser::Unknown(text.to_owned());
        let numbers =
            text.split_once(':').and_then(|(u, g)| Some((u.parse().ok()?, g.parse().ok()?)));
        let found = if let Some((uid, gid)) = numbers {
            let (name, home) = (None, None);
            Self { uid, gid, name, home }
        } else {
            let user = User::from_name(text).ok().flatten().ok_or_else(unknown)?;
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            Self { uid, gid, name: Some(user.name), home: Some(user.dir) }
        };
        let is_own = Uid::from_raw(found.uid) == geteuid();
        let is_own = is_own && Gid::from_raw(found.gid) == nix::unistd::getegid();
        match (is_own, geteuid().is_root()) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(found)),
            (false, false) => Err(NoUser::NotRoot),
        }
    }

    /// What its environment says of it.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let name = self.name.iter().flat_map(|name| ["USER", "LOGNAME"].map(|key| (key, name)));
        let name = name.map(|(key, name)| (key.to_owned(), name.clone()));
        // A home that it cannot read is worse than none.
        let home = self.home.as_ref().map_or_else(|| "/".to_owned(), |h| h.display().to_string());
        name.chain([("HOME".to_owned(), home)]).collect()
    }
}

/// Where the programs of `PATH` and their libraries are, beside the system's own folders.
fn libraries() -> Vec<PathBuf> {
    let of = |name: &&str| env::var_os(name).unwrap_or_default();
    let named =
        LIBRARIES.iter().map(of).flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = env::split_paths(&path).map(|folder| installation(&folder));
    let mut all: Vec<PathBuf> = named.chain(programs).filter(|path| path.is_absolute()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The folder of an installation, of which `folder` has the programs.
fn installation(folder: &Path) -> PathBuf {
    let home = env::var_os("HOME").map(PathBuf::from);
    let is_bin = folder.file_name().is_some_and(|name| name == "bin" || name == "sbin");
    let above = folder
        .parent()
        .filter(|above| is_bin && above.parent().is_some() && home.as_deref() != Some(*above));
    above.unwrap_or(folder).to_owned()
}

/// What a program by this path consists of: the folder that it is installed in, and the one that it
/// is a link to.
pub(super) fn program_files(program: &Path) -> Vec<PathBuf> {
    let program = if program.is_absolute() { Some(program.to_owned()) } else { looked_up(program) };
    let target = program.as_ref().and_then(|program| std::fs::canonicalize(program).ok());
    let both = [program, target].into_iter().flatten();
    both.filter_map(|file| file.parent().map(installation)).collect()
}

/// Where `PATH` has it.
fn looked_up(program: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(flags: Vec<OsString>) -> Vec<String> {
        flags.into_iter().map(|flag| flag.into_string().unwrap()).collect()
    }

    #[test]
    fn unbound_children_have_no_flags_and_a_model_goes_before_all() {
        assert!(Bounds::default().flags(None, &["/m".into()], Some(1)).is_empty());
        let mut config = Config::default();
        config.containers.open_files_max = 100;
        config.containers.cpu_seconds_max = 9;
        let bounds = Bounds::new(&config, None).unwrap();
        let own = ProcessConfig {
            open_files_max: Some(7),
            cpu_seconds_max: Some(0),
            address_space_max_bytes: Some(1 << 30),
            ..ProcessConfig::default()
        };
        let flags = texts(bounds.flags(Some(&own), &[], None));
        assert_eq!(flags, ["--address-space-max-bytes=1073741824", "--open-files-max=7"]);
        assert_eq!(
            texts(bounds.flags(None, &[], None)),
            ["--open-files-max=100", "--cpu-seconds-max=9"]
        );
    }

    #[test]
    fn a_fence_hides_what_is_the_servers() {
        let mut config = Config { data_dir: "/d".into(), ..Config::default() };
        config.tls.key = "/k.pem".into();
        config.containers.landlock = Landlock::Required;
        config.containers.network = ChildNetwork::Server;
        config.containers.write_paths = vec!["/w".to_owned()];
        let bounds = Bounds::new(&config, Some(Path::new("/c.toml"))).unwrap();
        let own = ProcessConfig { read_paths: vec!["/own".to_owned()], ..ProcessConfig::default() };
        let flags = texts(bounds.flags(Some(&own), &["/m".into()], Some(7000)));
        for wanted in [
            "--landlock=required",
            "--read=/m",
            "--read=/own",
            "--write=/w",
            "--hide=/d",
            "--hide=/k.pem",
            "--hide=/c.toml",
            "--connect-port=7000",
        ] {
            assert!(flags.iter().any(|flag| flag == wanted), "{wanted}: {flags:?}");
        }
        assert_eq!(installation(Path::new("/venv/bin")), Path::new("/venv"));
        assert_eq!(installation(Path::new("/bin")), Path::new("/bin"));
        assert_eq!(installation(Path::new("/tools")), Path::new("/tools"));
    }

    #[test]
    fn a_user_is_a_name_or_numbers() {
        assert_eq!(ChildUser::find(""), Ok(None));
        assert!(matches!(ChildUser::find("no such user"), Err(NoUser::Unknown(_))));
        let other = ChildUser::find("54321:54322");
        if geteuid().is_root() {
            let other = other.unwrap().unwrap();
            assert_eq!((other.uid, other.gid), (54_321, 54_322));
            assert_eq!(other.variables(), [("HOME".to_owned(), "/".to_owned())]);
        } else {
            assert_eq!(other, Err(NoUser::NotRoot));
        }
    }
}
