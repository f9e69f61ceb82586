//! AMF0 values that must not be read, with the beginning of the error's name; shared with the corpus and as seeds for fuzzing.

/// `{name, bytes, name of the error}`.
pub fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let object = |body: &[u8]| [&[3][..], body].concat();
    vec![
        ("nothing", vec![], "Truncated"),
        ("number cut short", vec![0, 0x40, 0], "Truncated"),
        ("boolean without a byte", vec![1], "Truncated"),
        ("string cut short", vec![2, 0, 5, b'a', b'b'], "Truncated"),
        ("string of 65535 bytes with none", vec![2, 0xFF, 0xFF], "Truncated"),
        ("long string of 16 MB with none", vec![0x0C, 1, 0, 0, 0, b'a'], "Truncated"),
        ("long string of 4 GB with none", vec![0x0C, 0xFF, 0xFF, 0xFF, 0xFF], "Truncated"),
        ("XML of 4 GB with none", vec![0x0F, 0xFF, 0xFF, 0xFF, 0xFF], "Truncated"),
        ("strict array of 2^32 - 1 with none", vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF], "Truncated"),
        ("strict array of 3 with 2", vec![0x0A, 0, 0, 0, 3, 5, 5], "Truncated"),
        ("strict array of 100000 nulls", [&[0x0A, 0, 1, 0x86, 0xA0][..], &[5; 100_000]].concat(), "TooMany"),
        ("ECMA array of 2^32 - 1 with none", vec![8, 0xFF, 0xFF, 0xFF, 0xFF], "Truncated"),
        ("date cut short", vec![0x0B, 0, 0, 0, 0, 0, 0, 0, 0, 0], "Truncated"),
        ("reference cut short", vec![7, 0], "Truncated"),
        ("object without an end", object(&[0, 1, b'a', 5]), "Truncated"),
        ("object with a name and no value", object(&[0, 1, b'a']), "Truncated"),
        ("object with a name cut short", object(&[0, 9, b'a']), "Truncated"),
        ("object end alone", vec![9], "Marker(9)"),
        ("object end behind a name", object(&[0, 1, b'a', 9]), "Marker(9)"),
        ("movie clip", vec![4], "Marker(4)"),
        ("record set", vec![0x0E], "Marker(14)"),
        ("unknown marker", vec![0x12], "Marker(18)"),
        ("highest marker", vec![0xFF], "Marker(255)"),
        ("17 arrays in each other", [0x0A, 0, 0, 0, 1].repeat(17), "TooDeep"),
        ("10000 arrays in each other", [0x0A, 0, 0, 0, 1].repeat(10_000), "TooDeep"),
        ("70000 objects in each other", [3, 0, 1, b'a'].repeat(70_000)[..65_000].to_vec(), "TooDeep"),
        ("ECMA arrays in each other", [8, 0, 0, 0, 1, 0, 1, b'a'].repeat(3000), "TooDeep"),
        ("typed objects in each other", [16, 0, 1, b'c', 0, 1, b'a'].repeat(3000), "TooDeep"),
    ]
}

/// A string.
pub fn text(text: &str) -> Vec<u8> {
    [&[2][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// A number.
pub fn number(number: f64) -> Vec<u8> {
    [&[0][..], &number.to_be_bytes()].concat()
}

/// A property of an object.
pub fn property(name: &str, value: &[u8]) -> Vec<u8> {
    [&(name.len() as u16).to_be_bytes()[..], name.as_bytes(), value].concat()
}

/// An object behind its marker (and count).
pub fn object(marker: &[u8], properties: &[Vec<u8>]) -> Vec<u8> {
    [marker, &properties.concat(), &[0, 0, 9]].concat()
}

/// Payloads as real clients send them: `{name, bytes}`.
pub fn commands() -> Vec<(&'static str, Vec<u8>)> {
    let connect = object(
        &[3],
        &[
            property("app", &text("live")),
            property("type", &text("nonprivate")),
            property("flashVer", &text("FMLE/3.0 (compatible; FMSc/1.0)")),
            property("swfUrl", &text("rtmp://localhost/live")),
            property("tcUrl", &text("rtmp://localhost/live")),
        ],
    );
    let enhanced = object(
        &[3],
        &[
            property("app", &text("live?token=a")),
            property("tcUrl", &text("rtmp://localhost/live?token=a")),
            property("fourCcList", &[&[10, 0, 0, 0, 2][..], &text("hvc1"), &text("av01")].concat()),
            property("videoFourCcInfoMap", &object(&[3], &[property("*", &number(4.0))])),
            property("capsEx", &number(15.0)),
            property("time", &[&[11][..], &1.7e12_f64.to_be_bytes(), &[0, 0]].concat()),
        ],
    );
    let metadata = object(
        &[8, 0, 0, 0, 3],
        &[
            property("width", &number(1920.0)),
            property("stereo", &[1, 1]),
            property("encoder", &text("obs-output module (libobs version 32.2.1)")),
        ],
    );
    vec![
        ("connect by OBS", [text("connect"), number(1.0), connect].concat()),
        ("connect by Enhanced RTMP", [text("connect"), number(1.0), enhanced].concat()),
        ("connect as AMF3", [vec![0], text("connect"), number(1.0), vec![17, 10, 11, 1]].concat()),
        ("releaseStream", [text("releaseStream"), number(2.0), vec![5], text("key")].concat()),
        ("releaseStream without an object", [text("releaseStream"), number(2.0)].concat()),
        ("createStream", [text("createStream"), number(4.0), vec![5]].concat()),
        ("publish", [text("publish"), number(5.0), vec![5], text("key?a=b&c=%2F"), text("live")].concat()),
        ("publish with wrong types", [text("publish"), vec![5, 5], number(1.0), vec![1, 1]].concat()),
        ("publish of nothing", [text("publish"), number(0.0), vec![5], text("")].concat()),
        ("publish of control characters", [text("publish"), number(0.0), vec![5], text("a\r\nb\0/../c")].concat()),
        ("deleteStream", [text("deleteStream"), number(7.0), vec![5], number(1.0)].concat()),
        ("FCUnpublish", [text("FCUnpublish"), number(6.0), vec![5], text("key")].concat()),
        ("setDataFrame", [text("@setDataFrame"), text("onMetaData"), metadata].concat()),
        ("onStatus", {
            let information = [property("level", &text("status")), property("code", &text("NetStream.Publish.Start"))];
            [text("onStatus"), number(0.0), vec![5], object(&[3], &information)].concat()
        }),
        ("ping", vec![0, 6, 0, 0, 1, 2]),
    ]
}
