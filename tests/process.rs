//! Background, signals and foreign faults, in processes of their own: without the test harness, whose threads would
//! forbid the fork.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, reason = "a test that dies of a fault on purpose")]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::thread;

use ckpt_fs::sys::daemon::{self, Notifier, Role};
use ckpt_fs::sys::mapping::Mapping;
use ckpt_fs::sys::signals::{Signal, Signals};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, scene, file] = &args[..]
        && flag == "--scene"
    {
        return scene_process(scene, Path::new(file));
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    ready_child_outlives_its_parent();
    failure_is_passed_on();
    silent_death_is_reported();
    threads_forbid_the_fork();
    signals_are_waited_for();
    foreign_bus_errors_still_kill();
    println!("process: 6 scenes passed");
    ExitCode::SUCCESS
}

/// What runs in the process under test.
fn scene_process(scene: &str, file: &Path) -> ExitCode {
    if scene == "threads" {
        thread::spawn(thread::park);
    }
    if scene == "signals" {
        return wait_for_signals();
    }
    if scene.starts_with("bus") {
        return die_of_a_bus_error(scene);
    }
    match daemon::start() {
        Ok(Role::Parent(waiter)) => {
            let outcome = waiter.wait().unwrap();
            println!("{outcome}");
            ExitCode::from(outcome.exit_code())
        }
        Ok(Role::Child(notifier)) => child(scene, file, notifier),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(9)
        }
    }
}

fn child(scene: &str, file: &Path, notifier: Notifier) -> ExitCode {
    match scene {
        "ready" => {
            eprintln!("before");
            let log = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
            notifier.ready(Some(&log)).unwrap();
            // Until the test has seen that the parent did not wait for this.
            std::fs::read(file.with_extension("go")).unwrap();
            eprintln!("after");
            println!("done");
            std::fs::write(file.with_extension("done"), "").unwrap();
        }
        "failed" => {
            eprintln!("no such checkpoint");
            notifier.failed(7).unwrap();
        }
        "exit" => return ExitCode::from(3),
        _ => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    }
    ExitCode::SUCCESS
}

/// With the guard in place, a fault outside its mappings or a SIGBUS that somebody sends.
fn die_of_a_bus_error(scene: &str) -> ExitCode {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8192).unwrap();
    let guarded = Mapping::new(&file, 8192).unwrap();
    let foreign = memmap2::MmapOptions::new().len(8192).map_raw_read_only(&file).unwrap();
    file.set_len(0).unwrap();
    assert!(guarded.copy(0, &mut [0]).is_err());
    if scene == "bus-sent" {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
    } else {
        // SAFETY: none: this read is meant to fault.
        let byte = unsafe { foreign.as_ptr().read_volatile() };
        println!("read {byte}");
    }
    ExitCode::SUCCESS
}

fn wait_for_signals() -> ExitCode {
    let signals = Signals::block().unwrap();
    let waiting =
        thread::spawn(move || (signals.wait().unwrap(), signals.wait().unwrap(), signals.wait().unwrap()));
    println!("waiting");
    std::io::stdout().flush().unwrap();
    let all = waiting.join().unwrap();
    let mut seen = [all.0, all.1, all.2];
    seen.sort_by_key(|signal| format!("{signal:?}"));
    assert_eq!(seen, [Signal::HangUp, Signal::Interrupt, Signal::Terminate]);
    ExitCode::SUCCESS
}

fn run(scene: &str, file: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap()).args(["--scene", scene]).arg(file).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ready_child_outlives_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for pipe in ["go", "done"] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let path = log.with_extension(pipe);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    // Had the child kept stdout or stderr, or the parent waited for its end, this would never return.
    let output = run("ready", &log);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "before\n");
    std::fs::write(log.with_extension("go"), "").unwrap();
    std::fs::read(log.with_extension("done")).unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "after\ndone\n");
}

fn failure_is_passed_on() {
    let output = run("failed", Path::new("-"));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stderr), "no such checkpoint\n");
}

fn silent_death_is_reported() {
    let output = run("exit", Path::new("-"));
    assert_eq!(output.status.code(), Some(9));
    assert!(text(&output.stdout).contains("exit code 3"), "{output:?}");
    let output = run("kill", Path::new("-"));
    assert_eq!(output.status.code(), Some(9));
    assert!(text(&output.stdout).contains("signal 9"), "{output:?}");
}

fn threads_forbid_the_fork() {
    let output = run("threads", Path::new("-"));
    assert_eq!(output.status.code(), Some(9));
    assert!(text(&output.stderr).contains("2 threads"), "{output:?}");
}

fn foreign_bus_errors_still_kill() {
    for scene in ["bus-sent", "bus-fault"] {
        let output = run(scene, Path::new("-"));
        assert_eq!(output.status.signal(), Some(7), "{scene}: {output:?}");
    }
}

fn signals_are_waited_for() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--scene", "signals", "-"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 8];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::INT, rustix::process::Signal::TERM]
    {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    assert!(child.wait().unwrap().success());
}
