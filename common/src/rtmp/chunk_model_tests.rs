//! A model of a sender that uses all that RTMP 1.0 allows: any format that fits, long and short ids, extended timestamps repeated or not,
//! chunks of several messages interleaved, chunk sizes that change in between. The scanner must hear what the model meant.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::rtmp::tables::chunk::{basic, ext, set_chunk_size};

#[derive(Clone, Debug)]
struct Meant {
    header: MessageHeader,
    payload: Vec<u8>,
}

/// The sender's memory of a chunk stream.
#[derive(Clone, Copy, Debug)]
struct Sent {
    header: MessageHeader,
    delta: u32,
    extended: Option<u32>,
}

#[derive(Debug, Default)]
struct Sender {
    sent: Vec<Sent>,
    out: Vec<u8>,
}

impl Sender {
    /// Header of a first chunk in the shortest format not above `shortest` that says what is meant.
    fn begin(&mut self, header: MessageHeader, shortest: u8) {
        let before =
            self.sent.iter().position(|sent| sent.header.csid == header.csid).map(|index| self.sent.remove(index));
        let mut format = 0;
        let mut value = header.timestamp;
        if let Some(before) = before
            && before.header.stream_id == header.stream_id
        {
            let delta = header.timestamp.wrapping_sub(before.header.timestamp);
            let same = (before.header.length, before.header.type_id) == (header.length, header.type_id);
            format = match () {
                () if same && delta == before.delta => 3,
                () if same => 2,
                () => 1,
            };
            format = format.min(shortest);
            value = if format == 0 { header.timestamp } else { delta };
        }
        let extended =
            if format == 3 { before.and_then(|before| before.extended) } else { (value >= 0xFF_FFFF).then_some(value) };
        self.out.extend(basic(format, header.csid));
        if format < 3 {
            self.out.extend_from_slice(&value.min(0xFF_FFFF).to_be_bytes()[1..]);
        }
        if format < 2 {
            self.out.extend_from_slice(&header.length.to_be_bytes()[1..]);
            self.out.push(header.type_id);
        }
        if format == 0 {
            self.out.extend_from_slice(&header.stream_id.to_le_bytes());
        }
        self.out.extend(extended.map(ext).unwrap_or_default());
        self.sent.push(Sent { header, delta: value, extended });
    }

    fn go_on(&mut self, csid: u32, repeat: bool) {
        let sent = self.sent.iter().find(|sent| sent.header.csid == csid).expect("begun");
        self.out.extend(basic(3, csid));
        self.out.extend(sent.extended.filter(|_| repeat).map(ext).unwrap_or_default());
    }
}

fn meant() -> impl Strategy<Value = Meant> {
    let csid = prop_oneof![Just(3_u32), Just(4), Just(6), Just(64), Just(320), Just(65_599)];
    let step = prop_oneof![Just(0_u32), Just(23), 0_u32..100, 0xFF_FFF0_u32..0x0100_0010, any::<u32>()];
    let length = prop_oneof![Just(0_usize), Just(9), Just(128), Just(300), 0_usize..700];
    (csid, step, length, prop_oneof![Just(8_u8), Just(9), 3_u8..=25], 0_u32..2).prop_map(
        |(csid, timestamp, length, type_id, stream_id)| Meant {
            header: MessageHeader { csid, timestamp, length: length as u32, type_id, stream_id },
            // No byte that an extended timestamp of this model begins with by chance: where it is not repeated, only the bytes tell.
            payload: (0..length).map(|byte| 0x55 + (byte % 9) as u8).collect(),
        },
    )
}

proptest! {
    #[test]
    fn every_message_of_the_model_is_read(
        messages in prop::collection::vec(meant(), 1..30),
        shortest in prop::collection::vec(0_u8..=3, 30),
        order in prop::collection::vec(any::<Index>(), 200),
        sizes in prop::collection::vec(prop_oneof![Just(1_usize), Just(128), 1_usize..600], 10),
        repeat: bool,
        cut: Index,
    ) {
        let mut sender = Sender::default();
        let mut clocks: Vec<(u32, u32)> = Vec::new();
        let mut chunk_size = 128;
        let mut waiting: Vec<Meant> = messages.into_iter().rev().collect();
        let mut open: Vec<(Meant, usize)> = Vec::new();
        let mut complete: Vec<Meant> = Vec::new();
        let (mut shortest, mut order, mut sizes) = (shortest.into_iter(), order.into_iter(), sizes.into_iter());
        while !(waiting.is_empty() && open.is_empty()) {
            let choice = order.next().map_or(0, |index| index.index(16));
            let next_fits = waiting.last().is_some_and(|next| open.iter().all(|(meant, _)| meant.header.csid != next.header.csid));
            if choice == 15 && let Some(size) = sizes.next() {
                let message = set_chunk_size(size as u32);
                let header = MessageHeader { csid: 2, timestamp: 0, length: 4, type_id: 1, stream_id: 0 };
                // In chunks itself, when they are smaller than it.
                let mut parts = message[12..].chunks(chunk_size);
                sender.begin(header, 0);
                sender.out.extend_from_slice(parts.next().expect("four bytes"));
                for part in parts {
                    sender.go_on(2, true);
                    sender.out.extend_from_slice(part);
                }
                chunk_size = size;
            } else if next_fits && (choice % 2 == 0 || open.is_empty()) {
                let mut meant = waiting.pop().expect("there is a next one");
                let csid = meant.header.csid;
                let clock = clocks.iter_mut().find(|(known, _)| *known == csid);
                match clock {
                    Some((_, clock)) => {
                        *clock = clock.wrapping_add(meant.header.timestamp);
                        meant.header.timestamp = *clock;
                    }
                    None => clocks.push((csid, meant.header.timestamp)),
                }
                sender.begin(meant.header, shortest.next().unwrap_or(3));
                let end = meant.payload.len().min(chunk_size);
                sender.out.extend_from_slice(&meant.payload[..end]);
                if end == meant.payload.len() { complete.push(meant) } else { open.push((meant, end)) }
            } else {
                let index = choice % open.len();
                let (meant, sent) = &mut open[index];
                sender.go_on(meant.header.csid, repeat);
                let end = meant.payload.len().min(*sent + chunk_size);
                sender.out.extend_from_slice(&meant.payload[*sent..end]);
                *sent = end;
                if end == meant.payload.len() {
                    complete.push(open.remove(index).0);
                }
            }
        }

        let stream = sender.out;
        let (heard, _) = super::tests::hear(&stream, [cut.index(stream.len() + 1), stream.len()]);
        prop_assert_eq!(heard.error, None);
        prop_assert!(heard.aborted.is_empty());
        let ours: Vec<_> = heard.messages.into_iter().filter(|message| message.0 != 2).collect();
        let expected: Vec<_> = complete
            .into_iter()
            .map(|Meant { header, payload }| (header.csid, header.timestamp, header.type_id, header.stream_id, payload))
            .collect();
        prop_assert_eq!(ours, expected);
    }
}
