//! The table of push URLs; errors, redirects, and the parts that are shown.

use super::*;

/// URL, then scheme, host, port, app and key.
const ROWS: &[(&str, bool, &str, u16, &str, &str)] = &[
    ("rtmp://h/live/KEY", false, "h", 1935, "live", "KEY"),
    ("RTMP://h/live/KEY", false, "h", 1935, "live", "KEY"),
    ("rtmp://h:1936/live/KEY", false, "h", 1936, "live", "KEY"),
    ("rtmps://h/live/KEY", true, "h", 443, "live", "KEY"),
    ("rtmps://h:1935/live/KEY", true, "h", 1935, "live", "KEY"),
    ("rtmp://127.0.0.1/live/KEY", false, "127.0.0.1", 1935, "live", "KEY"),
    ("rtmp://[::1]/live/KEY", false, "::1", 1935, "live", "KEY"),
    ("rtmps://[2001:db8::1]:8443/live/KEY", true, "2001:db8::1", 8443, "live", "KEY"),
    // More segments: the last slash before the query.
    ("rtmp://h/app/instance/KEY", false, "h", 1935, "app/instance", "KEY"),
    ("rtmp://h/a/_definst_/KEY?x=1", false, "h", 1935, "a/_definst_", "KEY?x=1"),
    // Facebook: the query belongs to the key, slashes in it too.
    (
        "rtmps://live-api-s.facebook.com:443/rtmp/FB-1?s_bl=1&s=a/b",
        true,
        "live-api-s.facebook.com",
        443,
        "rtmp",
        "FB-1?s_bl=1&s=a/b",
    ),
    // YouTube's backup: the query belongs to the app.
    ("rtmps://b.rtmps.youtube.com/live2?backup=1/KEY", true, "b.rtmps.youtube.com", 443, "live2?backup=1", "KEY"),
    ("rtmp://h/live2?backup=1/KEY?x=1", false, "h", 1935, "live2?backup=1", "KEY?x=1"),
    ("rtmps://a.rtmps.youtube.com:443/live2/KEY", true, "a.rtmps.youtube.com", 443, "live2", "KEY"),
    // Twitch.
    (
        "rtmp://x.contribute.live-video.net/app/KEY?bandwidthtest=true",
        false,
        "x.contribute.live-video.net",
        1935,
        "app",
        "KEY?bandwidthtest=true",
    ),
    // Bilibili: the key is a query.
    ("rtmp://h/live-bvc/?streamname=1&key=2", false, "h", 1935, "live-bvc", "?streamname=1&key=2"),
    // `#` states the split outright, and wins over everything.
    ("rtmp://h/app#KEY", false, "h", 1935, "app", "KEY"),
    ("rtmp://h/app/instance#path/KEY?x=1", false, "h", 1935, "app/instance", "path/KEY?x=1"),
    ("rtmp://h/app?token=1/2#KEY", false, "h", 1935, "app?token=1/2", "KEY"),
    ("rtmp://h/app#a#b", false, "h", 1935, "app", "a#b"),
    // Nothing is decoded or normalised.
    ("rtmp://h/app/K%2FY+%20&=;", false, "h", 1935, "app", "K%2FY+%20&=;"),
    ("rtmp://h/a//b", false, "h", 1935, "a/", "b"),
    ("rtmp://h/app/k{1}", false, "h", 1935, "app", "k{1}"),
    ("rtmp://h/app/KEY?back=http://i/j", false, "h", 1935, "app", "KEY?back=http://i/j"),
    // Placeholders are split like text.
    ("rtmp://h/{app}/{key}", false, "h", 1935, "{app}", "{key}"),
    ("rtmp://h/live/{app}-{key}", false, "h", 1935, "live", "{app}-{key}"),
    ("rtmp://h/live2?backup=1/{key}", false, "h", 1935, "live2?backup=1", "{key}"),
    ("rtmp://h/live#{app}/{key}", false, "h", 1935, "live", "{app}/{key}"),
];

#[test]
fn every_row_splits_into_app_and_key() {
    for (url, tls, host, port, app, key) in ROWS {
        let template = PushTemplate::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((template.tls, template.host.as_str(), template.port), (*tls, *host, *port), "{url}");
        assert_eq!((template.app.0.as_str(), template.key.0.as_str()), (*app, *key), "{url}");
    }
}

#[test]
fn malformed_urls_are_refused_with_their_fix() {
    let no_key = || UrlError::NoKey("rtmp://h".to_owned());
    let no_app = || UrlError::NoApp("rtmp://h".to_owned());
    let long = format!("rtmp://h/a/{}", "k".repeat(MAX_URL_BYTES));
    let table = [
        ("", UrlError::Scheme),
        ("h/live/KEY", UrlError::Scheme),
        ("http://h/live/KEY", UrlError::Scheme),
        ("rtmpt://h/live/KEY", UrlError::Scheme),
        (long.as_str(), UrlError::TooLong),
        ("rtmp://h/live/K EY", UrlError::Character),
        ("rtmp://h/live/K\0Y", UrlError::Character),
        ("rtmp:///live/KEY", UrlError::Host),
        ("rtmp://:1935/live/KEY", UrlError::Host),
        ("rtmp://::1/live/KEY", UrlError::Host),
        ("rtmp://[::1/live/KEY", UrlError::Host),
        ("rtmp://[::g]/live/KEY", UrlError::Host),
        ("rtmp://[::1]x/live/KEY", UrlError::Host),
        ("rtmp://h%41/live/KEY", UrlError::Host),
        ("rtmp://h:/live/KEY", UrlError::Port),
        ("rtmp://h:0/live/KEY", UrlError::Port),
        ("rtmp://h:65536/live/KEY", UrlError::Port),
        ("rtmp://h:x/live/KEY", UrlError::Port),
        ("rtmp://{app}/live/KEY", UrlError::PlaceholderHost),
        ("rtmp://u:{key}@h/live/KEY", UrlError::PlaceholderHost),
        ("rtmp://h/live/{name}", UrlError::Placeholder("name".to_owned())),
        ("rtmp://h/{stream_key}/x", UrlError::Placeholder("stream_key".to_owned())),
        ("rtmp://h", no_key()),
        ("rtmp://h/", no_key()),
        ("rtmp://h/live", no_key()),
        ("rtmp://h/live/", no_key()),
        ("rtmp://h/live?x=1", no_key()),
        ("rtmp://h/live#", no_key()),
        ("rtmp://h/{key}", no_app()),
        ("rtmp://h/{key}?x=1", no_app()),
        ("rtmp://h//KEY", no_app()),
        ("\"rtmp://h/live/KEY\"", UrlError::Quoted),
        ("'rtmp://h/live/KEY'", UrlError::Quoted),
        ("rtmp://h/live/K1,rtmp://i/live/K2", UrlError::Joined),
        ("rtmp://h/live/K1;RTMPS://i/live/K2", UrlError::Joined),
        ("rtmp://h/live/K1,http://i/live/K2", UrlError::Joined),
        ("rtmp://h/live/K1?x=1,rtmp://i/live/K2", UrlError::Joined),
        ("rtmp://h/live#K1,rtmp://i/live#K2", UrlError::Joined),
        ("rtmp://h,rtmp://i/live/K2", UrlError::Joined),
        ("rtmp://rtmp://h/live/K1", UrlError::Joined),
        ("rtmp://h/#KEY", no_app()),
    ];
    for (url, error) in table {
        assert_eq!(PushTemplate::parse(url).err(), Some(error), "{url:?}");
    }
}

#[test]
fn error_for_one_segment_suggests_a_key_and_hides_the_segment() {
    let error = PushTemplate::parse("rtmp://u:pw@h:99/S3CRET").unwrap_err().to_string();
    assert!(error.contains("/{key}") && error.contains("rtmp://h:99"), "{error}");
    assert!(!error.contains("S3CRET") && !error.contains("pw"), "{error}");
}

fn resolved(template: &str, app: &str, key: &str) -> PushUrl {
    PushTemplate::parse(template).unwrap().resolve(app, &StreamKey::parse(key).unwrap()).unwrap()
}

#[test]
fn substitution_is_byte_for_byte() {
    let table = [
        ("rtmp://h/{app}/{key}", "live", "k?x=1&y=%2f/z", "live", "k?x=1&y=%2f/z"),
        ("rtmp://h/{app}/{key}", "a/b?t=1", "k", "a/b?t=1", "k"),
        ("rtmp://h/x/{app}_{key}_{key}", "live", "k", "x", "live_k_k"),
        ("rtmp://h/{key}/fixed", "live", "k?q", "k?q", "fixed"),
        ("rtmp://h/live2?backup=1/{key}", "a", "k#1", "live2?backup=1", "k#1"),
        // A publisher's text is no template.
        ("rtmp://h/{app}/{key}", "{key}", "{app}", "{key}", "{app}"),
        ("rtmp://h/live/KEY", "a", "k", "live", "KEY"),
    ];
    for (template, app, key, to_app, to_key) in table {
        let url = resolved(template, app, key);
        assert_eq!((url.app.as_str(), url.key.expose()), (to_app, to_key), "{template}");
    }
}

#[test]
fn template_knows_its_placeholders() {
    let table =
        [("rtmp://h/live/KEY", false, false), ("rtmp://h/{app}/KEY", true, false), ("rtmp://h/{key}/x", false, true)];
    for (url, app, key) in table {
        let template = PushTemplate::parse(url).unwrap();
        assert_eq!((template.takes_app(), template.takes_key()), (app, key), "{url}");
    }
}

#[test]
fn credentials_come_from_the_url_and_are_not_shown() {
    let url = resolved("rtmp://us%40er:p%3Aa%2Fs@s%zz@h:99/live?token=t0k/S3CRET", "a", "k");
    let credentials = url.credentials.clone().unwrap();
    assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("us@er", "p:a/s@s%zz"));
    assert_eq!((url.host.as_str(), url.port, url.app.as_str()), ("h", 99, "live?token=t0k"));
    let shown =
        format!("{url} {url:?} {:?} {}", PushTemplate::parse("rtmp://u:p4ss@h/live/S3CRET"), credentials.password);
    for secret in ["S3CRET", "t0k", "p4ss", "p:a"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert_eq!(url.to_string(), "rtmp://h:99/live/…");
    assert_eq!(resolved("rtmp://h/{key}/fixed", "a", "S3CRET").to_string(), "rtmp://h:1935/…");
    assert_eq!(resolved("rtmp://user@h/live/x", "a", "k").credentials.unwrap().password.expose(), "");
}

#[test]
fn display_hides_everything_after_the_app() {
    for url in
        ["rtmp://h/live/S3CRET/", "rtmp://h/live/S3CRET/x", "rtmp://h//live/S3CRET/x?y", "rtmp://h/live/S3CRET#x"]
    {
        let shown = match PushTemplate::parse(url) {
            Ok(template) => {
                let resolved = template.resolve("a", &StreamKey::parse("k").unwrap()).unwrap();
                assert_eq!(template.to_string(), "rtmp://h:1935/live/…");
                format!("{template:?} {resolved} {resolved:?}")
            }
            Err(error) => error.to_string(),
        };
        assert!(!shown.contains("S3CRET"), "{shown}");
    }
}

#[test]
fn tc_url_leaves_out_key_and_default_port() {
    let table = [
        ("rtmp://h/live/KEY", "rtmp://h/live"),
        ("rtmp://u:p@h:1935/live/KEY?x", "rtmp://h/live"),
        ("rtmps://h/live2?backup=1/KEY", "rtmps://h/live2?backup=1"),
        ("rtmps://h:1935/live/KEY", "rtmps://h:1935/live"),
        ("rtmp://[::1]:443/a/b/KEY", "rtmp://[::1]:443/a/b"),
    ];
    for (url, tc_url) in table {
        assert_eq!(resolved(url, "a", "k").tc_url(), tc_url, "{url}");
    }
}

#[test]
fn comma_before_the_next_url_is_refused() {
    for text in ["rtmp://h/live/{key}, rtmp://i/live/{key}", "rtmp://h/live/K;\nrtmp://i/live/K"] {
        assert_eq!(PushTemplate::parse_list(text), Err(vec![(1, UrlError::Separator)]), "{text:?}");
    }
    assert_eq!(PushTemplate::parse_list("rtmp://h/live/K;").unwrap().len(), 1, "a key may end with anything");
}

#[test]
fn list_reports_every_mistake() {
    let urls = PushTemplate::parse_list(" rtmp://a/live/{key}\n\trtmps://b/live2/KEY ").unwrap();
    assert_eq!(
        urls.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["rtmp://a:1935/live/…", "rtmps://b:443/live2/…"]
    );
    let errors = PushTemplate::parse_list("rtmp://a/live http://b/c/d rtmp://h/l/k rtmp://H:1935/l/k").unwrap_err();
    assert_eq!(errors, [(1, UrlError::NoKey("rtmp://a".to_owned())), (2, UrlError::Scheme), (4, UrlError::Twice(3))]);
    assert_eq!(PushTemplate::parse_list(" \n").unwrap_err(), [(0, UrlError::None)]);
    let many: String = (0..=MAX_URLS).map(|n| format!("rtmp://h/a/{n} ")).collect();
    assert_eq!(PushTemplate::parse_list(&many).unwrap_err(), [(0, UrlError::TooMany)]);
}

#[test]
fn our_wire_carries_urls_in_full() {
    let url = resolved("rtmps://u:p@h/live/{key}", "a", "k?x");
    let bytes = postcard::to_stdvec(&url).unwrap();
    assert_eq!(postcard::from_bytes::<PushUrl>(&bytes).unwrap(), url);
}

#[test]
fn redirects_keep_the_key_and_never_give_up_tls() {
    use RedirectError::{Downgrade, Malformed};
    let from = |text: &str| {
        let key = StreamKey::parse("unused").unwrap();
        PushTemplate::parse(text).unwrap().resolve("unused", &key).unwrap()
    };
    type Row = (&'static str, &'static str, Result<(bool, &'static str, u16, &'static str), RedirectError>);
    const PLAIN: &str = "rtmp://user:pass@h/live/KEY?t=1";
    const TLS: &str = "rtmps://h/live/KEY";
    let rows: [Row; 20] = [
        (PLAIN, "rtmp://other:1936/app", Ok((false, "other", 1936, "app"))),
        (PLAIN, "RTMP://192.0.2.1/a/b?x=1", Ok((false, "192.0.2.1", 1935, "a/b?x=1"))),
        (PLAIN, "rtmp://[2001:db8::1]:1936/app/", Ok((false, "2001:db8::1", 1936, "app"))),
        (PLAIN, "rtmp://other", Ok((false, "other", 1935, "live"))),
        (PLAIN, "rtmp://other/", Ok((false, "other", 1935, "live"))),
        // SRS once gave the whole URL.
        (PLAIN, "rtmp://other/app/KEY", Ok((false, "other", 1935, "app"))),
        (PLAIN, "rtmp://other/app/KEY?t=1", Ok((false, "other", 1935, "app"))),
        (PLAIN, "rtmps://other/app", Ok((true, "other", 443, "app"))),
        (TLS, "rtmps://other:8443/app", Ok((true, "other", 8443, "app"))),
        (TLS, "rtmp://other/app", Err(Downgrade)),
        (PLAIN, "", Err(Malformed)),
        (PLAIN, "other/app", Err(Malformed)),
        (PLAIN, "http://other/app", Err(Malformed)),
        (PLAIN, "rtmp://", Err(Malformed)),
        (PLAIN, "rtmp:///app", Err(Malformed)),
        (PLAIN, "rtmp://other:0/app", Err(Malformed)),
        (PLAIN, "rtmp://other:99999/app", Err(Malformed)),
        (PLAIN, "rtmp://me:secret@other/app", Err(Malformed)),
        (PLAIN, "rtmp://other/app\r\nx", Err(Malformed)),
        (PLAIN, "rtmp://a b/app", Err(Malformed)),
    ];
    for (url, target, expected) in rows {
        let from = from(url);
        let got = from.redirected(target);
        let parts = got.as_ref().map(|url| (url.tls, url.host.as_str(), url.port, url.app.as_str()));
        assert_eq!(parts, expected.as_ref().map(|parts| *parts), "{target}");
        if let Ok(got) = got {
            assert_eq!((got.key, got.credentials), (from.key, None), "{target}");
        }
    }
    let from = from(PLAIN);
    assert!(from.redirected(&format!("rtmp://other/{}", "x".repeat(MAX_URL_BYTES))).is_err());
    assert_eq!(from.redirected("rtmp://h:1936/app").unwrap().credentials, from.credentials);
    let shown = from.redirected("rtmp://other/KEY/app").unwrap().to_string();
    assert!(!shown.contains("KEY"), "{shown}");
}
