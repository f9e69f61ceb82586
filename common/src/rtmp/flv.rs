//! The parts of an FLV file (Video File Format Specification 10.1, annex E), for messages of RTMP. In: what a message is. Out: the bytes around its
//! payload. Pure. Users: the excerpts of the worker, and those of the activator.

use super::type_id;

/// The name before the metadata of most publishers, as an AMF0 string; files do without it.
pub const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// Bytes of a tag beside its payload: [`tag_head`] and [`back_pointer`].
pub const TAG_BYTES: usize = 15;

/// The beginning of a file (E.2), and the first back pointer.
#[must_use]
pub fn file_head(has_audio: bool, has_video: bool) -> [u8; 13] {
    let flags = u8::from(has_audio) << 2 | u8::from(has_video);
    [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
}

/// The head of a tag (E.4.1) with a payload of `length` bytes, fewer than 16 MiB.
#[must_use]
pub fn tag_head(type_id: u8, timestamp: u32, length: u32) -> [u8; 11] {
    let [_, l2, l1, l0] = length.to_be_bytes();
    let [t3, t2, t1, t0] = timestamp.to_be_bytes();
    [tag_type(type_id), l2, l1, l0, t2, t1, t0, t3, 0, 0, 0]
}

/// The length of the tag before, which stands behind each tag; `length` is that of its payload.
#[must_use]
pub fn back_pointer(length: u32) -> [u8; 4] {
    (length + 11).to_be_bytes()
}

/// The payload of a tag: data lose the byte for AMF3, and the name in front of metadata.
#[must_use]
pub fn tag_payload(type_id: u8, payload: &[u8]) -> &[u8] {
    let payload = match type_id {
        type_id::DATA_AMF3 => payload.strip_prefix(&[0]).unwrap_or(payload),
        type_id::DATA_AMF0 => payload,
        _ => return payload,
    };
    payload.strip_prefix(SET_DATA_FRAME).unwrap_or(payload)
}

const fn tag_type(type_id: u8) -> u8 {
    match type_id {
        type_id::DATA_AMF3 => type_id::DATA_AMF0,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_has_the_high_byte_of_its_time_behind_the_others_and_data_lose_what_files_lack() {
        assert_eq!(tag_head(type_id::VIDEO, 0x0403_0201, 0x0A_0B0C), [9, 10, 11, 12, 3, 2, 1, 4, 0, 0, 0]);
        assert_eq!(tag_head(type_id::DATA_AMF3, 0, 0)[0], type_id::DATA_AMF0);
        assert_eq!(back_pointer(1), [0, 0, 0, 12]);
        assert_eq!(file_head(true, false)[4], 4);
        let named = [SET_DATA_FRAME, b"rest"].concat();
        assert_eq!(tag_payload(type_id::DATA_AMF0, &named), b"rest");
        assert_eq!(tag_payload(type_id::DATA_AMF3, &[&[0], named.as_slice()].concat()), b"rest");
        assert_eq!(tag_payload(type_id::AUDIO, &named), named);
    }
}
