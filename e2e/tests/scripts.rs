//! The scripts for Kubernetes refuse wrong arguments with one sentence, before they touch a cluster. These tests need no cluster.

use std::process::{Command, Output};

use liveedgecast_common::url::PushTemplate;
use liveedgecast_e2e::publish::root;

/// Runs a script with a kubectl that knows no cluster.
fn run(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("tools").join(script));
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("KUBECONFIG", "/dev/null");
    command.envs(environment.iter().copied()).output().unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// The standard error of a script.
fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code of wrong usage. Every other failure of a script is 1.
const WRONG: Option<i32> = Some(2);

#[test]
fn up_accepts_the_push_urls_that_the_activator_accepts() {
    for urls in [
        "rtmp://a.example/live/{key}",
        "rtmps://a.example:443/live/{key} rtmp://[2001:db8::1]:1936/app/key",
        "rtmp://user:pass@a.example/live/key",
        "rtmp://a.example/live#key",
        "rtmp://a.rtmp.youtube.com/live2?backup=1/KEY",
        "rtmps://live-api-s.facebook.com:443/rtmp/KEY?s_bl=1",
        "rtmp://a.example/{key}",
        "rtmp://a.example",
        "rtmp://a.example/",
        "rtmp:///live/key",
        "rtmp://a.example:port/live/key",
        "http://a.example/live/key",
        "a.example/live/key",
        "rtmp://a.example/live/",
        "rtmp://a.example/live/key file:///x/y",
    ] {
        let output = run("up.sh", &["--image", "image"], &[("RTMP_PUSH_URL", urls)]);
        let good = PushTemplate::parse_list(urls).is_ok();
        assert_eq!(output.status.code() != WRONG, good, "{urls}: {}", errors(&output));
        if !good {
            assert!(errors(&output).starts_with("up.sh: RTMP_PUSH_URL, number "), "{urls}: {}", errors(&output));
        }
    }
}

#[test]
fn up_shows_no_secret_of_a_wrong_url() {
    let output = run("up.sh", &[], &[("RTMP_PUSH_URL", "rtmp://user:S3CRET@/live/S3CRET")]);
    assert_eq!(output.status.code(), WRONG);
    assert!(!errors(&output).contains("S3CRET"), "{}", errors(&output));
}

#[test]
fn up_refuses_a_token_that_an_activator_would_refuse() {
    for name in ["ADMIN_TOKEN", "VIEW_TOKEN"] {
        let output = run(
            "up.sh",
            &["--image", "image"],
            &[("RTMP_PUSH_URL", "rtmp://a.example/live/key"), (name, "fifteen-letters")],
        );
        assert_eq!(output.status.code(), WRONG, "{}", errors(&output));
        assert!(errors(&output).starts_with(&format!("up.sh: {name} has 15 characters")), "{}", errors(&output));
        assert!(!errors(&output).contains("fifteen-letters"), "{}", errors(&output));
    }
}

#[test]
fn scripts_name_the_wrong_argument() {
    for (script, arguments, sentence) in [
        ("up.sh", &["--wiht", "cpu"][..], "unknown argument: --wiht"),
        ("up.sh", &["--with", "gpu"], "--with needs one of: cpu "),
        ("up.sh", &["--with"], "--with needs one of: cpu "),
        ("up.sh", &["--overlay", "../base"], "--overlay needs one of: "),
        ("up.sh", &["--image", "a", "--push", "b"], "exclude each other"),
        ("up.sh", &["--timeout", "soon"], "number of seconds"),
        ("up.sh", &["--config", "no-such-file.yaml"], "--config needs a file"),
        ("up.sh", &["--with", "config"], "--with needs one of: cpu "),
        ("up.sh", &["--config", "Cargo.toml", "--open"], "leave out RTMP_PUSH_URL"),
        ("down.sh", &["--froce"], "unknown argument: --froce"),
        ("down.sh", &["--timeout", "0"], "number of seconds"),
        ("install-keda.sh", &["--version", "two"], "not a version: two"),
        ("install-keda.sh", &["--yes"], "unknown argument: --yes"),
        ("check-manifests.sh", &["deploy"], "usage: "),
    ] {
        let output = run(script, arguments, &[]);
        assert_eq!(output.status.code(), WRONG, "{script} {arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(sentence), "{script} {arguments:?}: {}", errors(&output));
    }
}

#[test]
fn scripts_say_that_no_cluster_answers() {
    for (script, arguments) in [("up.sh", &["--image", "image"][..]), ("down.sh", &[]), ("install-keda.sh", &[])] {
        let output = run(script, arguments, &[("RTMP_PUSH_URL", "rtmp://a.example/live/{key}")]);
        assert_eq!(output.status.code(), Some(1), "{script}: {}", errors(&output));
        let sentence = errors(&output);
        assert!(
            sentence.contains("no cluster answers") || sentence.contains("kubectl is not there"),
            "{script}: {sentence}"
        );
    }
}

#[test]
fn dry_run_without_a_cluster_prints_what_the_first_run_would_apply() {
    let url = [("RTMP_PUSH_URL", "rtmp://a.example/live/{key}")];
    let up = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = run("up.sh", &[&["--dry-run"], arguments].concat(), environment);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output))
    };
    let (code, text, errors) = up(&[], &url);
    if errors.contains("kubectl is not there") {
        return liveedgecast_e2e::cluster::not_run("up.sh --dry-run", "kubectl is not there");
    }
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("no cluster answers") && text.contains("liveedgecast-upstreams"), "{text}");
    let kinds = |text: &str, kind: &str| text.lines().filter(|line| *line == format!("kind: {kind}")).count();
    assert_eq!((kinds(&text, "Deployment"), kinds(&text, "ScaledObject")), (2, 1), "{text}");
    // The Secrets that people bring are not known, and an image needs no name.
    for arguments in
        [&["--overlay", "edge"][..], &["--with", "rtmps", "--with", "internal-tls"], &["--image", "a.example/b:1"]]
    {
        let (code, text, errors) = up(arguments, &url);
        assert!(code == Some(0) && kinds(&text, "ScaledObject") == 1, "{arguments:?}: {errors}");
    }
    let (code, text, errors) = up(&[], &[]);
    assert!(code == WRONG && text.is_empty() && errors.contains("RTMP_PUSH_URL is not set"), "{errors}");
}
