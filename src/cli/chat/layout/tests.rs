use super::*;

#[track_caller]
fn check_wrap(text: &str, columns: usize, want: &[&str]) {
    assert_eq!(wrap(text, columns), want, "{text:?} to {columns}");
}

#[test]
fn text_wraps_at_blanks_by_display_width() {
    check_wrap("", 10, &[""]);
    check_wrap("one two", 10, &["one two"]);
    check_wrap("one two three", 10, &["one two", "three"]);
    check_wrap("one two three", 7, &["one two", "three"]);
    check_wrap("abcdefghijkl", 5, &["abcde", "fghij", "kl"]);
    check_wrap("ab cdefghijkl", 5, &["ab", "cdefg", "hijkl"]);
    check_wrap("添加添加添加", 5, &["添加", "添加", "添加"]);
    check_wrap("one two   ", 7, &["one two"]);
    check_wrap("  in", 10, &["  in"]);
    check_wrap("a  b", 3, &["a", "b"]);
    check_wrap("👩‍👩‍👧👩‍👩‍👧", 3, &["👩‍👩‍👧", "👩‍👩‍👧"]);
    check_wrap("wide 添", 1, &["w", "i", "d", "e", "添"]);
}

fn said(sender: &str, text: &str, time: u64, mark: Mark) -> Line {
    let body = Body::Said { sender: sender.to_owned(), text: text.to_owned(), tags: String::new(), mark };
    Line { key: 0, record: None, time: Some(time), body }
}

#[track_caller]
fn check(line: &Line, before: Option<u64>, width: usize, want: &[&str]) {
    let rows: Vec<_> = rows(line, before, &Clock::utc(), width).iter().map(ToString::to_string).collect();
    assert_eq!(rows, want);
    assert!(rows.iter().all(|row| Span::raw(row).width() <= width), "{rows:?}");
}

#[test]
fn lines_become_rows() {
    let (hour, day) = (3_600_000, 86_400_000);
    check(&said("ann", "hi", hour, Mark::None), Some(0), 60, &["01:00            ann hi"]);
    check(&said("a-very-long-name", "hi", hour, Mark::Stored), Some(0), 60, &["01:00 ✓ a-very-long… hi"]);
    check(
        &said("ann", "one two three four five six seven eight nine ten", day, Mark::Sending),
        Some(day - 1),
        60,
        &[
            "──── Friday, 2 January 1970 ────────────────────────────────",
            "00:00 …          ann one two three four five six seven eight",
            "                     nine ten",
        ],
    );
    check(
        &said("ann", "one two three four", hour, Mark::Refused("too long".to_owned())),
        Some(0),
        30,
        &["01:00 ! ann: one two three", "             four", "        not stored: too long"],
    );
    check(
        &said("a-very-long-name", "hi there", hour, Mark::None),
        Some(0),
        26,
        &["01:00   a-very-long-name: ", "  hi there"],
    );
}

#[test]
fn a_message_s_number_and_tags_stand_behind_it_or_below() {
    let line = |text: &str, tags: &str| {
        let record = Some(Box::new(crate::cli::chat::record::said(12, "ann", text)));
        let body =
            Body::Said { sender: "ann".to_owned(), text: text.to_owned(), tags: tags.to_owned(), mark: Mark::None };
        Line { key: 0, record, time: Some(3_600_000), body }
    };
    check(&line("hi", ""), Some(0), 60, &["01:00            ann hi #12"]);
    check(&line("hi", "(edited) 👍 2"), Some(0), 60, &["01:00            ann hi (edited) 👍 2 #12"]);
    check(
        &line("one two three four five six seven eight", "(edited)"),
        Some(0),
        60,
        &["01:00            ann one two three four five six seven eight", "                     (edited) #12"],
    );
}

#[test]
fn a_name_keeps_its_colour_and_names_differ() {
    assert_eq!(color("ann"), color("ann"));
    let colors: std::collections::HashSet<_> = (0..100).map(|n| color(&format!("user{n}"))).collect();
    assert_eq!(colors.len(), COLORS.len());
}
