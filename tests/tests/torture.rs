//! `kmer-leader torture` with few deaths, and `kmer-leader segments`; the long runs are a command of their own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use kmer_tests::engine::{Engine, bin, leader};
use kmer_tests::fault::Small;

#[test]
fn deaths_of_workers_and_leaders_change_nothing() {
    let relation = Small::new(41, 300);
    for (seed, more, counted) in [
        ("1", "--leader -j 8", "-k 21"),
        ("2", "-j 3", "-k 21"),
        ("3", "--leader --kill-only -j 2", "-k 21"),
        // A unit takes a byte for each of a million keys, however small it is.
        ("4", "--leader -j 3", "-k 10 --summed"),
        ("5", "--leader -j 4", "-k 21 --objects 3"),
    ] {
        let ended = leader()
            .args(["torture", "--kills", "60", "--seed", seed])
            .words(more)
            .arg(relation.path())
            .words(&format!("-- --all {counted}"))
            .run()
            .exits(0);
        let text = ended.text();
        assert!(text.contains("every result was the same"), "{ended}");
        assert!(
            !more.contains("--leader") || !text.contains(" 0 leaders killed"),
            "{ended}no leader was hit"
        );
    }
}

#[test]
fn options_that_a_run_cannot_have_are_named() {
    let relation = Small::new(41, 30);
    for (option, told) in [
        ("--segment-dir=.", "what is left is looked for in /dev/shm"),
        ("--pin=x", "what is pinned stays"),
        ("-j 2", "error: the argument '--workers"),
        ("--max-rows 0", "error: invalid value '0' for '--max-rows"),
    ] {
        let engine = leader().words("torture --kills 3").arg(relation.path()).arg("--").words(option);
        let _ = engine.run().fails(2, &[told]);
    }
}

/// A program that gives other bytes now and then is found out.
#[test]
fn torture_sees_another_result() {
    let relation = Small::new(41, 300);
    // The threshold is 0 or not by what is drawn, which the expected bytes cannot know: here by the file changing under the runs.
    let copy = relation.path().with_file_name("copy");
    std::fs::copy(relation.path(), &copy).expect("copied");
    std::fs::copy(relation.path().with_extension("schema"), copy.with_extension("schema")).expect("copied");
    let running = leader()
        .keeps("kmer-torture.wrong")
        .words("torture --kills 100000 --seed 4")
        .arg(&copy)
        .words("-- --all -k 21")
        .spawn();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let other = Small::new(42, 200);
    std::fs::copy(other.path(), &copy).expect("copied");
    let _ = running.wait().fails(1, &["torture: seed 4, run "]);
}

/// A leader that died before it wrote a header leaves a bare object, which is nobody's only after some seconds.
#[test]
fn torture_waits_for_what_was_cut_off() {
    let relation = Small::new(41, 300);
    let script = r#"K=$0; [ "$K" = sh ] && K=$1; R=$2
        "$K" torture --kills 400 --seed 5 "$R" -- --all -k 21 & sleep 0.3
        (umask 077; truncate -s 65536 /dev/shm/kmer.00000000000000000000000000000000); wait; echo "left: $(ls /dev/shm)""#;
    let Some(engine) = alone(script) else { return };
    let ended = engine.arg(relation.path()).run().exits(0);
    assert!(ended.text().contains("every result was the same"), "{ended}");
    assert!(ended.text().ends_with("left: \n"), "{ended}");
}

/// A segment gets its name when its header is whole: a creator that dies before that leaves nothing, in shared memory and in a directory.
#[test]
fn a_creator_that_dies_before_its_header_is_whole_leaves_nothing() {
    let relation = Small::new(41, 300);
    let script = r#"K=$0; [ "$K" = sh ] && K=$1; R=$2; mkdir /dev/shm/d
        for D in /dev/shm /dev/shm/d; do for at in create.header create.named; do
        "$K" -q --all -k 21 -j 2 "$R" --segment-dir $D --inject $at:kill; echo "$at $(ls $D | grep -c ^kmer)"; rm -f $D/kmer.*
        done; done
        "$K" -q --all -k 21 -j 2 "$R" --inject create.header:kill; echo "$(ls /dev/shm)""#;
    let Some(engine) = alone(script) else { return };
    let ended = engine.arg(relation.path()).run().exits(0);
    let once = "create.header 0\ncreate.named 1\n";
    assert_eq!(ended.text(), format!("{once}{once}d\n"), "{ended}");
}

/// The objects beside a segment's first one get their names after it and lose them after it. Workers remove all of them when
/// their leader dies; where there are none, what is left goes with the next run, or with `--gc`.
#[test]
fn objects_beside_a_first_one_that_is_gone_are_removed() {
    let relation = Small::new(41, 300);
    let script = r#"K=$0; [ "$K" = sh ] && K=$1; R=$2; RUN="-q --all -k 21 --objects 4 -o out -j"
        left() { echo "$1 $(ls /dev/shm | sed 's/^kmer[.][0-9a-f]\{32\}/S/' | tr '\n' ' ')"; }
        for at in "2 create.beside:nth=2" "2 drain.opened" "2 remove.beside" "0 remove.beside" "0 remove.beside:nth=2"; do
        "$K" $RUN ${at%% *} "$R" --inject ${at#* }:leader:kill; sleep 0.3; left "$at"
        "$K" segments | awk 'NR > 1 && /kmer[.]/ { print $2, $1 ~ /[.][0-9]$/ ? "part" : "whole" }'
        "$K" -q --all -k 21 -j 1 "$R" -o again || exit 9; left "next"; done
        "$K" $RUN 0 "$R" --inject remove.beside:kill; "$K" segments --gc | sed 's/[0-9a-f]\{32\}/S/'
        "$K" $RUN 2 "$R" --resumable --inject drain.opened:leader:kill; sleep 0.3; left resumable
        "$K" resume $("$K" segments | awk '/resumable/ { print $1 }') -q -o out || exit 9; cmp out again || exit 9
        "$K" $RUN 2 "$R" || exit 9; cmp out again || exit 9; rm again; left end"#;
    let Some(engine) = alone(script) else { return };
    let ended = engine.arg(relation.path()).keeps("out").run().exits(0);
    let parts = |n: usize| "orphan part\n".repeat(n);
    let want = format!(
        "2 create.beside:nth=2 S S.1 S.2 \norphan whole\nnext \n2 drain.opened \nnext \n2 remove.beside \nnext \n\
         0 remove.beside S.1 S.2 S.3 \n{}next \n0 remove.beside:nth=2 S.2 S.3 \n{}next \n\
         removed kmer.S.1\nremoved kmer.S.2\nremoved kmer.S.3\nresumable S S.1 S.2 S.3 \nend \n",
        parts(3),
        parts(2)
    );
    assert_eq!(ended.text(), want, "{ended}");
}

/// A /dev/shm of its own, in which nobody else's segments are.
fn alone(script: &str) -> Option<Engine> {
    let mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm";
    let mut probe = Command::new("unshare");
    probe.args(["-m", "sh", "-c", mount]).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        println!("skipped: a mount namespace of our own is not permitted here");
        return None;
    }
    let script = format!("{mount} && {script}");
    Some(
        Engine::new(PathBuf::from("unshare")).args(["-m", "sh", "-c", &script, "sh"]).arg(bin("kmer-leader")),
    )
}

#[test]
fn segments_are_listed_resumed_and_removed() {
    let relation = Small::new(41, 300);
    let script = r#"K=$0; [ "$K" = sh ] && K=$1; R=$2
        run() { "$K" -q --all -k 21 -j 2 "$R" --resumable --inject "$1:leader:kill" >/dev/null; }
        run collect.begin; run drain.opened; sleep 0.3
        "$K" segments
        S=$("$K" segments | awk '/resumable/ { print $1; exit }')
        "$K" resume "$S" -q -o resumed || exit 9
        "$K" segments --gc
        echo pinned > /dev/shm/kmer.foreign; chmod 600 /dev/shm/kmer.foreign
        "$K" segments
        "$K" segments --remove kmer.foreign; echo "code $?"
        "$K" segments --remove kmer.nothing; echo "code $?"
        ls /dev/shm"#;
    let Some(engine) = alone(script) else { return };
    let ended = engine.arg(relation.path()).keeps("resumed").run().exits(0);
    let resumed = std::fs::read(ended.dir.path().join("resumed")).expect("a result");
    let peace = leader().words("-q --all -k 21 -j 1").arg(relation.path()).run().exits(0).stdout;
    assert!(resumed == peace, "{ended}other bytes");
    let text = ended.text();
    assert_eq!(text.matches("resumable").count(), 2, "{ended}");
    assert_eq!(text.matches("removed kmer.").count(), 1, "{ended}the other was resumed");
    assert!(text.contains("kmer.foreign                            foreign"), "{ended}");
    assert_eq!(text.matches("code 1").count(), 2, "{ended}neither is ours to remove");
    assert!(text.ends_with("kmer.foreign\n"), "{ended}something else is left");
}

#[test]
fn what_cannot_be_resumed() {
    let relation = Small::new(41, 300);
    let script = r#"K=$0; [ "$K" = sh ] && K=$1; R=$2
        "$K" resume kmer.nothing; echo "code $?"
        "$K" -q --all -k 21 -j 2 "$R" --resumable --inject collect.begin:leader:kill >/dev/null; sleep 0.3
        S=$("$K" segments | awk '/resumable/ { print $1 }')
        cp "$R" kept; printf x | dd of="$R" bs=1 seek=8000 conv=notrunc 2>/dev/null
        "$K" resume "$S"; echo "code $?"
        cp -p kept "$R"
        "$K" segments | grep -c resumable
        "$K" segments --gc"#;
    let Some(engine) = alone(script) else { return };
    let ended = engine.arg(relation.path()).keeps("kept").run().exits(0);
    assert_eq!(ended.text().matches("code 1").count(), 2, "{ended}");
    assert!(ended.stderr.contains("could not open shared-memory segment \"kmer.nothing\""), "{ended}");
    assert!(ended.stderr.contains("expected it as it was when the run began, found it changed"), "{ended}");
    assert!(
        ended.text().contains("\n1\nremoved kmer."),
        "{ended}the segment stays, for what can be put right"
    );
}

/// One run leads, and another must not take it over.
#[test]
fn a_segment_in_use_is_not_taken_over() {
    let relation = Small::new(41, 300);
    let script = r#"K=$0; [ "$K" = sh ] && K=$1; R=$2
        "$K" -q --all -k 21 -j 2 "$R" --resumable --inject collect.begin:leader:delay=6500 -o out & sleep 0.5
        S=$("$K" segments | awk '/running/ { print $1 }')
        "$K" resume "$S"; echo "code $?"; "$K" segments --gc; "$K" segments --remove "$S"; echo "code $?"
        wait; echo "end $?"; ls /dev/shm"#;
    let Some(engine) = alone(script) else { return };
    let ended = engine.arg(relation.path()).keeps("out").run().exits(0);
    assert_eq!(ended.text(), "code 1\ncode 1\nend 0\n", "{ended}");
    assert!(ended.stderr.contains("expected its leader and workers to be dead, found one alive"), "{ended}");
}
