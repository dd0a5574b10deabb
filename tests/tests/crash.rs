//! Workers that are killed at any moment, and a run that is interrupted.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use kmer_tests::case::Case;
use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Ended, Engine};
use kmer_tests::oracle::Dna;
use kmer_tests::server::Server;

/// Some thousand pages; only 2,000 different rows, so that the oracle stays quick.
fn large() -> &'static Case {
    static CASE: OnceLock<Case> = OnceLock::new();
    CASE.get_or_init(|| {
        let server = Server::shared();
        let bits = data::all_dna2_bits(&data::rows(20, 2000));
        server.sql(
            &("CREATE TABLE few (seq dna2);\nCREATE TABLE large (id int4, seq dna2);\n".to_owned()
                + &data::copy_bits("few", "seq", &bits)
                + "INSERT INTO large SELECT i, seq FROM few, generate_series(1, 120) i;"),
        );
        let pages: u64 = server.value("SELECT pg_relation_size('large') / 8192;");
        assert!((1500..6000).contains(&pages), "{pages} pages");
        let mut case = Case::new(&server.table("large"), "seq", Dna::Dna2);
        case.rows.clear(); // the reference is a run without failures
        case
    })
}

fn engine(workers: usize) -> Engine {
    large().engine().words(&format!("--all -k 13 -j {workers}"))
}

/// The run without failures, checked against the oracle, and how long it took.
fn reference() -> &'static (Vec<u8>, Duration) {
    static REFERENCE: OnceLock<(Vec<u8>, Duration)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let _ = large();
        let start = Instant::now();
        let ended = engine(4).run().exits(0);
        let elapsed = start.elapsed();
        let few = Server::shared().table("few");
        let rows = few.sequences("seq");
        let once = kmer_tests::oracle::count_rows(&rows, kmer_tests::oracle::Params::dna2(13));
        let expected = once.into_iter().map(|(key, rows)| (key, rows * 120)).collect();
        let told = kmer_tests::output::differences(&ended.report(13, 0).counts, &expected);
        assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
        (ended.stdout, elapsed)
    })
}

/// Runs the engine and kills one of its workers after each of the delays, counted from the start; gives how many were killed.
fn run_and_kill(rng: &mut Rng, workers: usize, delays: &[Duration]) -> (Ended, usize) {
    let mut running = engine(workers).spawn();
    let start = Instant::now();
    let mut killed = 0;
    for delay in delays {
        thread::sleep(delay.saturating_sub(start.elapsed()));
        if running.has_ended() {
            break;
        }
        let alive = running.workers();
        if !alive.is_empty() {
            killed += usize::from(kill(alive[rng.below(alive.len())], Signal::SIGKILL).is_ok());
        }
    }
    (running.wait(), killed)
}

fn random_delays(rng: &mut Rng, n: usize) -> Vec<Duration> {
    let longest = usize::try_from(reference().1.as_micros()).expect("a short time");
    let mut delays: Vec<Duration> =
        (0..n).map(|_| Duration::from_micros(rng.below(longest + 1) as u64)).collect();
    delays.sort();
    delays
}

#[test]
fn killed_workers_change_nothing() {
    let seed = 21;
    let mut rng = Rng::new(seed);
    // At least 40 runs, and as many as it takes to hit 20 workers: how many die depends on how fast the machine is.
    let (mut run, mut killed) = (0, 0);
    while run < 40 || (killed < 20 && run < 300) {
        run += 1;
        let workers = [2, 4, 8, 12][rng.below(4)];
        // Fewer than the workers, so that no limit of replacements is met.
        let n = 1 + rng.below(workers);
        let delays = random_delays(&mut rng, n);
        let (ended, now) = run_and_kill(&mut rng, workers, &delays);
        killed += now;
        let ended = ended.exits(0);
        assert!(
            ended.stdout == reference().0,
            "{ended}seed {seed}, run {run}: other bytes after {now} of {workers} workers were killed at {delays:?}"
        );
    }
    println!("{killed} workers killed in {run} runs");
    assert!(killed > 0, "no worker was hit in {run} runs");
}

#[test]
fn many_deaths_end_in_the_right_bytes_or_in_an_error() {
    let mut rng = Rng::new(22);
    for run in 0..6 {
        let delays: Vec<Duration> = (0..2000).map(Duration::from_millis).collect();
        let (ended, killed) = run_and_kill(&mut rng, 3, &delays);
        match ended.status.code() {
            Some(0) => {
                assert!(ended.stdout == reference().0, "{ended}run {run}: {killed} killed, other bytes")
            }
            _ => {
                let ended = ended.fails(4, &["worker"]);
                assert!(ended.stdout.is_empty(), "{ended}an error with a result");
            }
        }
    }
}

#[test]
fn all_workers_killed_at_once_change_nothing() {
    let mut rng = Rng::new(23);
    for _ in 0..6 {
        let delay = random_delays(&mut rng, 1)[0];
        let mut running = engine(4).spawn();
        thread::sleep(delay);
        if !running.has_ended() {
            for worker in running.workers() {
                let _ = kill(worker, Signal::SIGKILL);
            }
        }
        let ended = running.wait().exits(0);
        assert!(ended.stdout == reference().0, "{ended}other bytes, killed after {delay:?}");
    }
}

#[test]
fn a_stopped_worker_that_goes_on_changes_nothing() {
    let mut rng = Rng::new(24);
    for _ in 0..6 {
        let delay = random_delays(&mut rng, 1)[0];
        let mut running = engine(3).spawn();
        thread::sleep(delay);
        let workers = if running.has_ended() { Vec::new() } else { running.workers() };
        if let Some(&worker) = workers.first() {
            let _ = kill(worker, Signal::SIGSTOP);
            thread::sleep(Duration::from_millis(50));
            let _ = kill(worker, Signal::SIGCONT);
        }
        let ended = running.wait().exits(0);
        assert!(ended.stdout == reference().0, "{ended}other bytes, stopped after {delay:?}");
    }
}

#[test]
fn an_interrupt_leaves_nothing() {
    let mut rng = Rng::new(25);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        let delay = random_delays(&mut rng, 1)[0] / 2;
        let mut running = engine(4).spawn();
        thread::sleep(delay);
        running.signal(signal);
        let ended = running.wait(); // audits
        if ended.status.code() == Some(0) {
            assert!(ended.stdout == reference().0, "{ended}ended before {signal} and with other bytes");
        } else {
            let ended = ended.ends_by(signal);
            assert!(ended.stdout.is_empty(), "{ended}an interrupted run printed a part");
        }
    }
}

#[test]
fn a_killed_leader_leaves_no_process() {
    let mut rng = Rng::new(26);
    for _ in 0..10 {
        let delay = random_delays(&mut rng, 1)[0];
        let mut running = engine(4).spawn();
        thread::sleep(delay);
        running.signal(Signal::SIGKILL);
        let _ = running.wait(); // audits processes, files and /dev/shm
    }
}
