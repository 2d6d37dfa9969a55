//! On real programs, process groups and servers.

use std::time::Instant;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::{get, post};

use super::*;

const LONG: Duration = Duration::from_secs(60);

async fn shell_with(script: &str, timeout: Duration, cancel: &CancellationToken) -> ActionResult {
    let argv = ["/bin/sh", "-c", script].map(String::from);
    let limits = Limits { timeout, grace: Duration::from_millis(200), cancel };
    let env = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    run_command(&argv, &env, &["/bin/sh".to_owned()], limits).await
}

async fn shell(script: &str) -> ActionResult {
    shell_with(script, LONG, &CancellationToken::new()).await
}

/// Waits until no process of this id is left (a zombie counts as gone: somebody else has to reap it).
async fn gone(pid: &str) -> bool {
    for _ in 0..600 {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Err(_) => return true,
            Ok(stat) if stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) => return true,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    false
}

fn alive(pid: &str) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn content(file: &Path) -> String {
    for _ in 0..600 {
        match std::fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("{} was never written", file.display())
}

#[tokio::test]
async fn exit_codes_and_output_are_told() {
    let result = shell("echo out; echo err >&2").await;
    assert_eq!((result.outcome, result.code, result.error), (StepOutcome::Succeeded, Some(0), None));
    let output = result.output.unwrap();
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");

    let result = shell("exit 7").await;
    assert_eq!((result.outcome, result.code, result.output), (StepOutcome::Failed, Some(7), None));
    assert_eq!(result.error.unwrap(), "/bin/sh exited with 7");
    let result = shell("kill -9 $$").await;
    assert_eq!((result.outcome, result.code), (StepOutcome::Failed, Some(137)));
}

#[tokio::test]
async fn only_the_steps_own_environment_is_set_and_input_is_empty() {
    assert!(std::env::var_os("PATH").is_some(), "this test's own environment has a PATH");
    let argv = ["/usr/bin/env".to_owned()];
    let cancel = CancellationToken::new();
    let env = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    let limits = Limits { timeout: LONG, grace: LONG, cancel: &cancel };
    let result = run_command(&argv, &env, &argv, limits).await;
    assert_eq!(result.output.as_deref(), Some("GREETING=hello\n"));
    assert_eq!(shell("read line && echo got || echo none").await.output.as_deref(), Some("none\n"));
}

#[tokio::test]
async fn only_allowed_programs_run() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, folder.path().join("linked")).unwrap();
    for name in ["one", "two"] {
        std::os::unix::fs::symlink("/bin/sh", real.join(name)).unwrap();
    }
    let path = |text: &str| folder.path().join(text).display().to_string();
    let allow = [path("real/one")];
    assert_eq!(allowed_program(&path("real/one"), &allow), Ok(real.canonicalize().unwrap().join("one")));
    assert!(allowed_program(&path("linked/one"), &allow).is_ok());
    assert!(allowed_program(&path("linked/../real/one"), &allow).is_ok());
    // The same binary by another name is another program.
    for refused in [path("real/two"), "/bin/sh".into(), "sh".into(), "real/one".into(), path("none/one")] {
        assert!(allowed_program(&refused, &allow).is_err(), "{refused}");
    }
    let cancel = CancellationToken::new();
    let limits = Limits { timeout: LONG, grace: LONG, cancel: &cancel };
    let result = run_command(&["/bin/sh".into()], &BTreeMap::new(), &allow, limits).await;
    assert_eq!((result.outcome, result.code), (StepOutcome::Failed, None));
    assert!(result.error.unwrap().contains("allow list"));
}

#[tokio::test]
async fn a_late_program_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let (child, stubborn) = (folder.path().join("child"), folder.path().join("stubborn"));
    let script = format!(
        "/usr/bin/sleep 600 & echo $! > {}; (trap '' TERM; echo $$ >/dev/null; /usr/bin/sleep 600) & echo $! > {}; wait",
        child.display(),
        stubborn.display()
    );
    let result = shell_with(&script, Duration::from_secs(2), &CancellationToken::new()).await;
    assert_eq!((result.outcome, result.code), (StepOutcome::TimedOut, None));
    assert_eq!(result.error.unwrap(), "/bin/sh did not end within 2s and was killed");
    assert!(gone(&content(&child).await).await, "the child lives on");
    assert!(gone(&content(&stubborn).await).await, "the one that ignores SIGTERM lives on");
}

#[tokio::test]
async fn calling_off_and_dropping_kill_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("trap '' TERM; /usr/bin/sleep 600 & echo $! > {}; wait", file.display());
    let cancel = CancellationToken::new();
    let (result, pid) = tokio::join!(shell_with(&script, LONG, &cancel), async {
        let pid = content(&file).await;
        cancel.cancel();
        pid
    });
    assert_eq!(result.outcome, StepOutcome::Failed);
    assert!(result.error.unwrap().contains("called off"));
    assert!(gone(&pid).await, "called off, but it lives on");

    std::fs::remove_file(&file).unwrap();
    let cancel = CancellationToken::new();
    let pid = tokio::select! {
        _ = shell_with(&script, LONG, &cancel) => panic!("it should not end"),
        pid = content(&file) => pid,
    };
    assert!(gone(&pid).await, "dropped, but it lives on");
}

#[tokio::test]
async fn a_service_left_running_neither_hangs_the_step_nor_dies_of_a_closed_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let (pid, go, wrote) = (folder.path().join("pid"), folder.path().join("go"), folder.path().join("wrote"));
    let script = format!(
        "(while [ ! -e {} ]; do /usr/bin/sleep 0.05; done; echo late && echo yes > {}; exec /usr/bin/sleep 600) & echo $! > {}; echo started",
        go.display(),
        wrote.display(),
        pid.display()
    );
    let before = Instant::now();
    let result = shell(&script).await;
    assert!(before.elapsed() < LONG, "it waited for the service");
    assert_eq!((result.outcome, result.output.as_deref()), (StepOutcome::Succeeded, Some("started\n")));
    let pid = content(&pid).await;
    assert!(alive(&pid), "the service was killed");
    std::fs::write(&go, "").unwrap();
    assert_eq!(content(&wrote).await, "yes", "the service could not print any more");
    killpg(Pid::from_raw(group_of(&pid)), Signal::SIGKILL).unwrap();
    assert!(gone(&pid).await);
}

fn group_of(pid: &str) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_flood_of_output_keeps_its_end() {
    let result = shell("i=0; while [ $i -lt 20000 ]; do echo \"line $i of many\"; i=$((i+1)); done").await;
    assert_eq!(result.outcome, StepOutcome::Succeeded);
    let output = result.output.unwrap();
    assert!(output.len() <= OUTPUT_BYTES + 100, "{} bytes were kept", output.len());
    assert!(output.starts_with('[') && output.ends_with("line 19999 of many\n"), "{}", &output[..80]);
}

#[test]
fn the_tail_is_the_end_of_everything_however_it_was_cut() {
    let text: Vec<u8> = (0..OUTPUT_BYTES * 3 + 17).map(|i| b'a' + (i % 26) as u8).collect();
    for size in [1, 7, 8192, OUTPUT_BYTES, OUTPUT_BYTES + 1, text.len()] {
        let mut tail = Tail::default();
        text.chunks(size).for_each(|chunk| tail.push(chunk));
        let dropped = text.len() - OUTPUT_BYTES;
        let want =
            format!("[{dropped} bytes before this were left out]\n{}", std::str::from_utf8(&text[dropped..]).unwrap());
        assert_eq!(tail.close(), Some(want), "in pieces of {size}");
        tail.push(b"more");
        assert!(tail.bytes.is_empty());
    }
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn requests_are_judged_by_their_status() {
    let echo = |headers: HeaderMap, body: String| async move { format!("{:?} {body}", headers.get("x-token")) };
    let url = serve(
        Router::new()
            .route("/echo", post(echo))
            .route("/broken", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "no") }))
            .route("/away", get(|| async { Redirect::temporary("/echo") }))
            .route("/never", get(std::future::pending::<()>))
            .route("/flood", get(|| async { "x".repeat(1_000_000) })),
    )
    .await;
    let headers = BTreeMap::from([("x-token".to_owned(), "t".to_owned())]);
    let cancel = CancellationToken::new();
    let ask = async |method: &str, path: &str, allow_private: bool, timeout: Duration| {
        let url = format!("{url}{path}");
        let request = Request { method, url: &url, headers: &headers, body: Some("hi"), allow_private };
        run_http(request, Limits { timeout, grace: LONG, cancel: &cancel }).await
    };
    let result = ask("POST", "/echo", true, LONG).await;
    assert_eq!((result.outcome, result.code), (StepOutcome::Succeeded, Some(200)));
    assert_eq!(result.output.as_deref(), Some("Some(\"t\") hi"));

    let result = ask("GET", "/broken", true, LONG).await;
    assert_eq!((result.outcome, result.code, result.output.as_deref()), (StepOutcome::Failed, Some(503), Some("no")));
    let result = ask("GET", "/away", true, LONG).await;
    assert_eq!((result.outcome, result.code), (StepOutcome::Failed, Some(307)));
    assert!(result.error.unwrap().contains("not followed"));
    let result = ask("GET", "/never", true, Duration::from_millis(300)).await;
    assert_eq!((result.outcome, result.code), (StepOutcome::TimedOut, None));
    assert_eq!(ask("GET", "/flood", true, LONG).await.output.unwrap().len(), OUTPUT_BYTES);
    let result = ask("POST", "/echo", false, LONG).await;
    assert_eq!((result.outcome, result.code), (StepOutcome::Failed, None));
    assert!(result.error.unwrap().contains("a loopback address"));
    assert!(ask("BAD METHOD", "/echo", true, LONG).await.error.unwrap().contains("not an HTTP method"));
}
