//! `[containers]`: replicas and child processes.

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::section::section;

// 0 is no limit.
pub(super) const ADDRESS_SPACE: Rule = Rule::int(0, 1 << 50, "bytes");
pub(super) const OPEN_FILES: Rule = Rule::int(0, 1 << 30, "files");
pub(super) const PROCESSES: Rule = Rule::int(0, 1 << 22, "processes");
pub(super) const CPU_SECONDS: Rule = Rule::int(0, 1 << 40, "seconds");
pub(super) const LANDLOCK: Rule = Rule::Choice(&["off", "try", "required"]);
pub(super) const NETWORK: Rule = Rule::Choice(&["any", "server"]);

/// What programs need to find themselves, their language, their libraries and their devices. No
/// credentials.
const PASS_ENVIRONMENT: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHON*",
    "VIRTUAL_ENV",
    "CONDA_*",
    "OMP_*",
    "MKL_*",
    "OPENBLAS_*",
    "CUDA_*",
    "NVIDIA_*",
    "ROCR_*",
    "ORT_*",
    "RUST_BACKTRACE",
];

section! {
    /// `[containers]`: replicas and child processes.
    pub struct ContainersConfig {
        /// First pause before a child that has ended is started again, milliseconds; each further
        /// one is twice as long. Short, since most deaths are single.
        restart_backoff_initial_ms: u64 = 100, Rule::millis();

        /// Longest such pause between starts that fail, milliseconds: of processes that end before
        /// they connect.
        restart_backoff_max_ms: u64 = 10_000, Rule::millis();

        /// Longest such pause after the end of a process that has served, milliseconds. What ended
        /// it may have been a query: it is wanted back soon, however often that happens.
        served_backoff_max_ms: u64 = 1_000, Rule::millis();

        /// Starts that fail in a row after which a child is tried rarely, with an error in the log;
        /// with the pauses above after about two minutes. `clipper admin replicas restart` tries at
        /// once.
        restart_budget: u32 = 20, Rule::int(0, 1_000_000, "restarts");

        /// That rarely, milliseconds. It is never given up.
        failing_start_pause_ms: u64 = 60_000, Rule::millis();

        /// A child that lived this long, milliseconds, begins with the shortest pause again.
        restart_window_ms: u64 = 30_000, Rule::millis();

        /// Children that start at a time; 0: half as many as there are cores, at least one. Those
        /// that died together would otherwise take the cores from who answers queries meanwhile.
        starts_at_once: usize = 0, Rule::int(0, 10_000, "starts");

        /// The next child starts when the one before has connected, and at the latest after so
        /// long, milliseconds.
        start_turn_ms: u64 = 200, Rule::millis();

        /// A child that has had no connection for so long, milliseconds, is ended and started
        /// again: one that hangs at its import, or lost its connection and does not come back.
        /// Longer than the longest import and loading of a model.
        connect_timeout_ms: u64 = 300_000, Rule::millis();

        /// How much nicer children are than the server, 0 to 19: where all cores are busy it gets
        /// what it needs first, so that answers go out in time, and models the rest; with 5 they
        /// get a third of what the server may take. Where a core is idle this changes nothing.
        niceness: u8 = 5, Rule::int(0, 19, "steps");

        /// After SIGTERM a child, with everything that it has started, gets this long,
        /// milliseconds; then SIGKILL.
        stop_grace_ms: u64 = 2_000, Rule::millis();

        /// Bytes of one captured line of a child's output; the rest of the line is cut.
        output_line_max_bytes: usize = 8 << 10, Rule::bytes();

        /// Lines of one child's output in a second that are logged; what is left out is counted in
        /// the log.
        output_lines_per_second_max: u32 = 200, Rule::count("lines");

        /// Variables of the server's own environment that children get; * at the end of a name
        /// stands for anything. The server's settings (CLIPPER_*) never are among them, since they
        /// may hold passwords.
        pass_environment: Vec<String> = PASS_ENVIRONMENT.map(str::to_owned).to_vec(), Rule::Names;

        /// The user as whom children run, a name or UID:GID; only where the server runs as root,
        /// which it need not. Empty: the server's own. Such a user has to be able to reach the
        /// files of its models, and data_dir, where the Python package lies.
        user: String = String::new(), Rule::AnyText;

        /// Address space of each process of a child, bytes; 0: no limit. More than it computes
        /// with: libraries reserve space that they never touch, and CUDA a lot of it.
        address_space_max_bytes: u64 = 0, ADDRESS_SPACE;

        /// Files and sockets that each process of a child may have open; 0: as many as the server.
        open_files_max: u64 = 0, OPEN_FILES;

        /// Processes and threads of the user as whom children run, all together; 0: no limit. Of
        /// use where that user is nobody else's (`user`); root is not limited.
        processes_max: u64 = 0, PROCESSES;

        /// CPU time after which a process of a child is killed, seconds; 0: no limit. For models
        /// that run away, not for those that serve for months.
        cpu_seconds_max: u64 = 0, CPU_SECONDS;

        /// Whether the kernel keeps children from files that are not theirs (Landlock; needs no
        /// privileges): "try" where it can, "required" refuses to start them where it cannot.
        /// They read the system's files, the interpreter, the folder of their model and
        /// read_paths, and change write_paths and the folder for temporary files. The server's
        /// keys, journal and certificates are hidden, and they cannot signal or trace it.
        landlock: Landlock = Landlock::Off, LANDLOCK;

        /// With landlock, further files and folders that children read, such as caches of weights.
        read_paths: Vec<String> = Vec::new(), Rule::Paths;

        /// With landlock, those that they change too.
        write_paths: Vec<String> = Vec::new(), Rule::Paths;

        /// With landlock, to which ports children connect by TCP: "any", or "server", the one for
        /// containers alone, which keeps them from the management port.
        network: Network = Network::Any, NETWORK;
    }
}

/// Whether children are held by Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Landlock {
    Off,
    /// Where the kernel can.
    Try,
    /// Or they do not start.
    Required,
}

/// To which ports children connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    Any,
    /// The port for containers.
    Server,
}
