//! AMF0 values that must not be read, with the beginning of the error's name; shared with the corpus and as seeds for fuzzing.
#![allow(unreachable_pub, dead_code, reason = "shared by unit tests and the corpus, each of which uses a part")]

/// `{name, bytes, what the error is called}`.
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
