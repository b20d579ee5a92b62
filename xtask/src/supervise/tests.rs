use super::*;

/// A mesh of one shell script, on a site of its own.
struct Scene {
    site: Site,
    stop: Sender<Event>,
    running: thread::JoinHandle<Result<Ending>>,
}

fn scene(script: &str, policy: Policy) -> Scene {
    let state = std::env::temp_dir().join(format!("ordermesh-{}", crate::os::random(8).unwrap()));
    fs::create_dir_all(&state).unwrap();
    let program = state.join("script");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    let program_text = program.display().to_string();
    // Run by the shell: a file that another thread's fork still holds open cannot be executed.
    let instance = Instance {
        name: "script".into(),
        service: "script".into(),
        listen: "127.0.0.1:1".into(),
        admin: "127.0.0.1:2".into(),
        program: "sh".into(),
        env: vec![("ENV".into(), program_text.clone()), ("SCRIPT".into(), program_text)],
    };
    let instance = Instance { program: wrapper(&state), ..instance };
    let site = Site { root: state.clone(), state, shift: 0 };
    let supervisor = Supervisor::new(&site, policy, vec![instance], Components::default());
    let stop = supervisor.sender();
    Scene { site, stop, running: thread::spawn(move || supervisor.run()) }
}

/// A program that runs `$SCRIPT`: `launch` passes no arguments.
fn wrapper(state: &std::path::Path) -> String {
    let path = state.join("wrapper");
    let status = Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\n. \"$SCRIPT\"\\n' >\"$0\" && chmod +x \"$0\""])
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    path.display().to_string()
}

fn quick(restart: bool) -> Policy {
    let drain = Duration::from_secs(20);
    Policy {
        restart,
        waits: vec![Duration::from_millis(1); 2],
        settled: Duration::from_secs(60),
        drain,
    }
}

impl Scene {
    fn until(&self, what: &str, met: impl Fn(&Run) -> bool) -> Run {
        let end = clock::now() + Duration::from_secs(30);
        loop {
            if let Ok(Some(run)) = Run::read(&self.site)
                && met(&run)
            {
                return run;
            }
            assert!(clock::now() < end, "{what} did not happen: {}", self.log());
            thread::yield_now();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.site.log("xtask")).unwrap_or_default()
    }

    fn end(self) -> Ending {
        self.stop.send(Event::Stop).unwrap();
        let ending = self.running.join().unwrap().unwrap();
        assert!(!self.site.run_file().exists());
        fs::remove_dir_all(&self.site.state).unwrap();
        ending
    }
}

#[test]
fn what_dies_is_started_again_until_the_tries_are_used_up_and_a_line_says_so() {
    let scene = scene("exit 7", quick(true));
    let run = scene.until("giving up", |run| run.processes[0].gave_up.is_some());
    assert_eq!(run.processes[0].starts, 3);
    let log = scene.log();
    assert!(log.contains("try 1 of 2") && log.contains("try 2 of 2"), "{log}");
    assert!(log.contains("it stays down. Mend it, then: cargo xtask restart script"), "{log}");
    assert_eq!(scene.end(), Ending::Clean);
}

#[test]
fn bad_settings_are_not_tried_twice() {
    let scene = scene("exit 2", quick(true));
    let run = scene.until("giving up", |run| run.processes[0].gave_up.is_some());
    assert_eq!(run.processes[0].starts, 1);
    assert!(scene.log().contains("refused its settings"));
    scene.end();
}

#[test]
fn without_restart_what_dies_stays_down_until_it_is_asked_for() {
    let scene = scene(
        "[ -e \"$SCRIPT.mended\" ] || exit 7\ntrap 'kill $!; exit 0' TERM; echo up; sleep 60 & wait",
        quick(false),
    );
    scene.until("giving up", |run| run.processes[0].gave_up.is_some());
    fs::write(scene.site.state.join("script.mended"), "").unwrap();
    fs::write(scene.site.control().join("restart-script"), "").unwrap();
    let run = scene
        .until("a new start", |run| run.processes[0].pid.is_some() && run.processes[0].starts == 2);
    assert_eq!(run.processes[0].gave_up, None);
    while !fs::read_to_string(scene.site.log("script")).unwrap().contains("up") {
        thread::yield_now();
    }
    assert_eq!(scene.end(), Ending::Clean);
}

#[test]
fn a_process_that_does_not_end_is_killed_when_asked_a_second_time_and_that_counts_as_cut() {
    let scene = scene("trap '' TERM; echo up; while :; do sleep 1; done", quick(true));
    let run = scene.until("a start", |run| run.processes[0].pid.is_some());
    while !fs::read_to_string(scene.site.log("script")).is_ok_and(|log| log.contains("up")) {
        thread::yield_now();
    }
    scene.stop.send(Event::Stop).unwrap();
    let pid = run.processes[0].pid.clone().unwrap();
    assert_eq!(scene.end(), Ending::Cut);
    assert!(!pid.alive());
}

#[test]
fn a_mesh_whose_state_was_removed_ends_and_leaves_nobody_behind() {
    let scene = scene("trap 'kill $!; exit 0' TERM; sleep 60 & wait", quick(true));
    let run = scene.until("a start", |run| run.processes[0].pid.is_some());
    // At once, as a whole: file by file, what the supervisor writes meanwhile would stay.
    let away = scene.site.state.with_extension("away");
    fs::rename(&scene.site.state, &away).unwrap();
    fs::remove_dir_all(&away).unwrap();
    scene.running.join().unwrap().unwrap();
    assert!(run.living().is_empty());
}
