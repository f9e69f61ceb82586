//! Tests of [`super`]: one table for both directions of control messages, and commands as the field sends them.

use super::*;
use crate::rtmp::{Ingest, Ingested};

const CONTROLS: &[(&str, Control, u8, &[u8])] = &[
    ("chunk size", Control::SetChunkSize(65_536), 1, &[0, 1, 0, 0]),
    ("abort", Control::Abort(6), 2, &[0, 0, 0, 6]),
    ("acknowledgement", Control::Acknowledgement(u32::MAX), 3, &[255, 255, 255, 255]),
    ("window", Control::WindowAckSize(2_500_000), 5, &[0, 0x26, 0x25, 0xA0]),
    ("bandwidth", Control::SetPeerBandwidth { size: 2_500_000, limit: 2 }, 6, &[0, 0x26, 0x25, 0xA0, 2]),
    ("stream begin", Control::UserControl(UserControl::StreamBegin(1)), 4, &[0, 0, 0, 0, 0, 1]),
    ("stream end", Control::UserControl(UserControl::StreamEof(1)), 4, &[0, 1, 0, 0, 0, 1]),
    ("stream dry", Control::UserControl(UserControl::StreamDry(1)), 4, &[0, 2, 0, 0, 0, 1]),
    (
        "buffer length",
        Control::UserControl(UserControl::SetBufferLength { stream_id: 1, milliseconds: 3000 }),
        4,
        &[0, 3, 0, 0, 0, 1, 0, 0, 0x0B, 0xB8],
    ),
    ("stream recorded", Control::UserControl(UserControl::StreamIsRecorded(1)), 4, &[0, 4, 0, 0, 0, 1]),
    ("ping", Control::UserControl(UserControl::PingRequest(258)), 4, &[0, 6, 0, 0, 1, 2]),
    ("pong", Control::UserControl(UserControl::PingResponse(258)), 4, &[0, 7, 0, 0, 1, 2]),
];

#[test]
fn control_messages_are_read_and_written() {
    for (name, control, type_id, payload) in CONTROLS {
        assert_eq!(Control::parse(*type_id, payload).as_ref(), Ok(control), "{name}");
        assert_eq!(control.payload(), *payload, "{name}");
        assert_eq!(control.type_id(), *type_id, "{name}");
        let mut wire = Vec::new();
        control.write(&mut wire, 128);
        let message = Ingest::new(0).next(&wire).unwrap();
        assert!(
            matches!(message, Some(Ingested::Message { header, payload: read }) if header.csid == 2 && header.type_id == *type_id && read == *payload),
            "{name}"
        );
    }
}

#[test]
fn rml_rtmp_reads_our_control_messages() {
    use rml_rtmp::messages::RtmpMessage;
    for (name, control, ..) in CONTROLS {
        let mut wire = Vec::new();
        control.write(&mut wire, 128);
        let payload = rml_rtmp::chunk_io::ChunkDeserializer::new().get_next_message(&wire).unwrap().unwrap();
        let theirs = payload.to_rtmp_message().unwrap();
        let same = match (control, &theirs) {
            (Control::SetChunkSize(ours), RtmpMessage::SetChunkSize { size }) => ours == size,
            (Control::Abort(ours), RtmpMessage::Abort { stream_id }) => ours == stream_id,
            (Control::Acknowledgement(ours), RtmpMessage::Acknowledgement { sequence_number }) => {
                ours == sequence_number
            }
            (Control::WindowAckSize(ours), RtmpMessage::WindowAcknowledgement { size }) => ours == size,
            (Control::SetPeerBandwidth { size: ours, .. }, RtmpMessage::SetPeerBandwidth { size, .. }) => ours == size,
            (Control::UserControl(_), RtmpMessage::UserControl { .. }) => true,
            _ => false,
        };
        assert!(same, "{name}: {theirs:?}");
    }
}

#[test]
fn control_messages_cut_short_are_refused() {
    for (name, control, type_id, payload) in CONTROLS {
        for length in 0..payload.len() {
            let cut = Control::parse(*type_id, &payload[..length]);
            if *type_id == type_id::USER_CONTROL && length >= 2 {
                // An event is kept as it is, so that a server's oddity does not end the connection.
                let Ok(Control::UserControl(UserControl::Other(..))) = cut else { panic!("{name}") };
            } else {
                assert_eq!(cut, Err(MessageError::Short { type_id: *type_id, length }), "{name}: {control:?}");
            }
        }
    }
}

#[test]
fn surplus_bytes_are_ignored() {
    assert_eq!(Control::parse(5, &[0, 0, 0, 1, 9, 9]), Ok(Control::WindowAckSize(1)));
    assert_eq!(Control::parse(4, &[0, 6, 0, 0, 0, 1, 9]), Ok(Control::UserControl(UserControl::PingRequest(1))));
}

#[test]
fn unknown_user_control_events_are_kept() {
    for (payload, event) in [
        (&[0, 26, 0, 1][..], UserControl::Other(26, vec![0, 1])),
        (&[0, 27], UserControl::Other(27, vec![])),
        (&[0, 33, 1, 2, 3, 4, 5, 6, 7, 8], UserControl::Other(33, vec![1, 2, 3, 4, 5, 6, 7, 8])),
        (&[255, 255, 0, 0, 0, 0], UserControl::Other(65_535, vec![0; 4])),
    ] {
        let control = Control::UserControl(event);
        assert_eq!(Control::parse(4, payload), Ok(control.clone()));
        assert_eq!(control.payload(), payload);
    }
}

#[test]
fn other_types_are_no_control_messages() {
    for type_id in [0, 7, 8, 9, 17, 20, 255] {
        assert_eq!(Control::parse(type_id, &[0; 8]), Err(MessageError::Type(type_id)));
    }
}

fn bytes_of(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| amf0::write(&mut out, value));
    out
}

fn command(name: &str, transaction: f64, object: Value, arguments: Vec<Value>) -> Command {
    Command { name: name.into(), transaction, object, arguments }
}

#[test]
fn commands_are_read_and_written() {
    let object = Value::Object(vec![
        ("app".into(), Value::string("live")),
        ("fourCcList".into(), Value::StrictArray(vec![Value::string("hvc1")])),
        ("videoFourCcInfoMap".into(), Value::Object(vec![("*".into(), Value::Number(4.0))])),
    ]);
    for ours in [
        command("connect", 1.0, object.clone(), vec![]),
        command("publish", 5.0, Value::Null, vec![Value::string("key?a=b"), Value::string("live")]),
        command("_result", 4.0, Value::Null, vec![Value::Number(1.0)]),
        command("onStatus", 0.0, Value::Null, vec![object]),
        command("", 0.0, Value::Undefined, vec![]),
    ] {
        let payload = ours.encode();
        let mut values = vec![Value::String(ours.name.clone()), Value::Number(ours.transaction), ours.object.clone()];
        values.extend(ours.arguments.clone());
        assert_eq!(payload, bytes_of(&values));
        assert!(Command::parse(20, &payload).unwrap() == ours);
        assert!(Command::parse(17, &[&[0], &payload[..]].concat()).unwrap() == ours);
        assert!(Command::parse(17, &payload).unwrap() == ours, "AMF3 without its zero byte");
    }
}

#[test]
fn missing_parts_of_a_command_are_no_error() {
    for (values, expected) in [
        (vec![Value::string("releaseStream"), Value::Number(2.0)], command("releaseStream", 2.0, Value::Null, vec![])),
        (vec![Value::string("publish")], command("publish", 0.0, Value::Null, vec![])),
        (vec![Value::string("publish"), Value::Null, Value::Null], command("publish", 0.0, Value::Null, vec![])),
        (
            vec![Value::LongString("publish".into()), Value::string("5"), Value::Null, Value::Null],
            command("publish", 0.0, Value::Null, vec![Value::Null]),
        ),
    ] {
        assert!(Command::parse(20, &bytes_of(&values)).unwrap() == expected);
    }
}

#[test]
fn other_payloads_are_no_commands() {
    let nameless = Err(MessageError::Nameless);
    let parsed = |type_id, payload: &[u8]| Command::parse(type_id, payload).map(|command| command.name);
    assert_eq!(parsed(20, &[]), nameless);
    assert_eq!(parsed(17, &[]), nameless);
    assert_eq!(parsed(17, &[0]), nameless);
    assert_eq!(parsed(20, &[5]), nameless);
    assert_eq!(parsed(20, &[0, 0, 0, 0, 0, 0, 0, 0, 0]), nameless);
    assert_eq!(parsed(20, &[9]), Err(MessageError::Amf0(Amf0Error::Marker(9))));
    assert_eq!(parsed(18, &[2, 0, 0]), Err(MessageError::Type(18)));
}

#[test]
fn fmle_puts_a_date_into_connect() {
    let date = Value::Date { milliseconds: 1.7e12, zone: 0 };
    let object = Value::Object(vec![("time".into(), date), ("app".into(), Value::string("live"))]);
    let read = Command::parse(20, &command("connect", 1.0, object, vec![]).encode()).unwrap();
    assert_eq!(read.object.property("app").and_then(Value::as_str), Some("live"));
}

#[test]
fn a_command_does_not_show_its_arguments() {
    let secret = command("publish", 5.0, Value::string("hidden"), vec![Value::string("hidden")]);
    let shown = format!("{secret:?}");
    assert!(shown.contains("publish") && !shown.contains("hidden"), "{shown}");
}

#[test]
fn rml_rtmp_reads_our_commands() {
    use rml_rtmp::messages::RtmpMessage;
    let mut wire = Vec::new();
    let arguments = vec![Value::string("key"), Value::string("live")];
    command("publish", 5.0, Value::Null, arguments).write(&mut wire, 4, 1, 16);
    let mut theirs = rml_rtmp::chunk_io::ChunkDeserializer::new();
    theirs.set_max_chunk_size(16).unwrap();
    let payload = theirs.get_next_message(&wire).unwrap().unwrap();
    let RtmpMessage::Amf0Command { command_name, transaction_id, additional_arguments, .. } =
        payload.to_rtmp_message().unwrap()
    else {
        panic!("not a command")
    };
    assert_eq!((command_name.as_str(), transaction_id, additional_arguments.len()), ("publish", 5.0, 2));
}
