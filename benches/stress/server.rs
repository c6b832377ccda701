//! A peer's server process: started in its own directory, watched, stopped by its own pid.

use std::{
    ffi::OsString,
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

use crate::{
    options::Common,
    peers::{Peer, Place, Storage},
};

/// How long a server may take to start, and to end.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a server may go on working off what it was told, once nobody talks to it.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// What the names of directories for data begin with; the harness's pid stands behind it.
const FOLDER: &str = "parlor-bench-";

/// A running server. Dropping it stops it and removes its directory.
pub(crate) struct Server {
    child: Child,
    command: Command,
    dir: TempDir,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Starts the peer's server on a free port of 127.0.0.1 and waits until it accepts.
    pub(crate) fn start<P: Peer>(peer: &P, storage: Storage, common: &Common) -> io::Result<Self> {
        let port = free_port()?;
        let dir = temporary(common)?;
        let Common { arbiters, beats, room_idle, .. } = *common;
        let command = peer.server(&Place { dir: dir.path(), port, storage, arbiters, beats, room_idle })?;
        let mut command = leashed(&command)?;
        let log = fs::File::create(dir.path().join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Self { child: spawn(&mut command)?, command, dir, addr: ([127, 0, 0, 1], port).into() };
        server.wait_until_accepting(Duration::from_millis(20))?;
        // Let it finish what it does at its start, so that the figures of an idle server are those.
        sleep(Duration::from_millis(300));
        Ok(server)
    }

    /// Starts the server once more in its directory, after it ended, and waits until it accepts. Returns when its process
    /// was started.
    pub(crate) fn start_again(&mut self) -> io::Result<Instant> {
        let began = Instant::now();
        self.child = spawn(&mut self.command)?;
        self.wait_until_accepting(Duration::from_millis(1))?;
        Ok(began)
    }

    fn wait_until_accepting(&mut self, every: Duration) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.addr).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}\n{}", self.log())));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("the server does not accept\n{}", self.log())));
            }
            sleep(every);
        }
        Ok(())
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Tells the server to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        self.terminate();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the server ended: {status}\n{}", self.log()))),
                None if Instant::now() > deadline => return Err(io::Error::other("the server does not end")),
                None => sleep(Duration::from_millis(10)),
            }
        }
    }

    fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The child is ours and not waited for yet, so no other process can have its pid.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until the server does next to nothing: until what it stored is where it stays.
    pub(crate) fn settle(&self) -> io::Result<()> {
        const QUIET: f64 = 0.02;
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let before = self.cpu_seconds()?;
            sleep(Duration::from_secs(1));
            if self.cpu_seconds()? - before <= QUIET {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("the server is still busy after {SETTLE_LIMIT:?}")));
            }
        }
    }

    /// Where it keeps its data.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// User plus system CPU seconds of the server so far.
    pub(crate) fn cpu_seconds(&self) -> io::Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// Resident memory of the server, in bytes.
    pub(crate) fn rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .map(|kib| kib * 1_024)
            .ok_or_else(|| io::Error::other("no VmRSS"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.terminate();
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// A directory for data that is removed when it is dropped.
pub(crate) fn temporary(common: &Common) -> io::Result<TempDir> {
    let prefix = format!("{FOLDER}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent(common))
}

/// Where such directories are.
fn parent(common: &Common) -> PathBuf {
    common.dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// Removes the directories of runs that ended without doing so, as with Ctrl-C. What cannot be removed stays.
pub(crate) fn tidy(common: &Common) {
    for entry in fs::read_dir(parent(common)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.strip_prefix(FOLDER)?.split_once('-')?.0.parse::<u32>().ok());
        if run.is_some_and(|run| !Path::new(&format!("/proc/{run}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command.spawn().map_err(|error| io::Error::other(format!("{command:?}: {error}")))
}

/// The command, run so that it ends with this process, however that ends: through this program, which becomes it.
fn leashed(command: &Command) -> io::Result<Command> {
    let mut leashed = Command::new(std::env::current_exe()?);
    leashed.arg("leash").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => leashed.env(name, value),
            None => leashed.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        leashed.current_dir(dir);
    }
    Ok(leashed)
}

/// Becomes the given program, which is told to end when the process that started this one is gone.
pub(crate) fn leash(command: &[OsString]) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let Some((program, args)) = command.split_first() else { return Err(io::Error::other("no program")) };
    Err(Command::new(program).args(args).exec())
}

/// User plus system CPU seconds of a process, all threads.
pub(crate) fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything, so the fields are counted from behind it.
    let fields = stat.rsplit_once(") ").ok_or_else(|| io::Error::other("no name in stat"))?.1;
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU seconds of this process so far.
pub(crate) fn own_cpu_seconds() -> io::Result<f64> {
    cpu_seconds(std::process::id())
}

/// CPU seconds that the machine has spent on anything so far, and those that its host gave to others.
pub(crate) fn machine_cpu_seconds() -> io::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    let ticks: u64 =
        fields.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A free port below the ephemeral range, so that no outgoing connection takes it first.
fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 21_000 + (std::process::id() % 5_000) as u16;
    loop {
        // Another port for each server: the last one's connections may still linger on its own.
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if port > 32_000 {
            return Err(io::Error::other("no free port"));
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}
