use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cli::chat::record::{change, said};

fn model() -> Model {
    let mut model = Model::new("ann", "lobby", "here:1", Some(40), Clock::utc());
    model.resize(Size { width: 60, height: 4 });
    model
}

fn own(seq: Seq, nonce: Nonce, text: &str) -> Record {
    Record { own: true, nonce, ..said(seq, "ann", text) }
}

fn press(model: &mut Model, code: KeyCode) -> Option<Action> {
    model.on_key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(model: &mut Model, text: &str) -> Option<Action> {
    for c in text.chars() {
        assert_eq!(press(model, KeyCode::Char(c)), None);
    }
    press(model, KeyCode::Enter)
}

/// The talk in short: a sign per line and its text.
fn talk(model: &Model) -> Vec<String> {
    (0..model.len())
        .filter_map(|at| model.line(at))
        .map(|line| match &line.body {
            Body::Note(text) => format!("-{text}"),
            Body::Said { text, mark: Mark::None, .. } => text.clone(),
            Body::Said { text, mark: Mark::Sending, .. } => format!("…{text}"),
            Body::Said { text, mark: Mark::Stored, .. } => format!("✓{text}"),
            Body::Said { text, mark: Mark::Refused(why), .. } => format!("!{text} ({why})"),
        })
        .collect()
}

/// The texts on the screen, without the columns before them.
fn screen(model: &Model) -> Vec<String> {
    let text = |row: String| row.split(" #").next().unwrap_or_default().chars().skip(21).collect();
    model.rows().iter().map(|row| text(row.to_string())).collect()
}

#[test]
fn a_line_of_one_s_own_is_shown_until_it_comes_back() {
    let mut model = model();
    assert_eq!(type_in(&mut model, "one"), Some(Action::Send { id: 0, text: "one".to_owned() }));
    assert_eq!(type_in(&mut model, "two"), Some(Action::Send { id: 1, text: "two".to_owned() }));
    model.on_record(said(41, "bob", "hi"));
    assert_eq!(talk(&model), ["hi", "…one", "…two"]);
    assert_eq!(model.unsent(), 2);
    model.on_stored(0, 7);
    assert_eq!(talk(&model), ["hi", "✓one", "…two"]);
    assert_eq!(model.unsent(), 1);
    model.on_record(own(42, 7, "one"));
    assert_eq!(talk(&model), ["hi", "✓one", "…two"]);
    model.on_record(own(43, 8, "two"));
    model.on_stored(1, 8);
    assert_eq!(talk(&model), ["hi", "✓one", "✓two"]);
    assert_eq!(model.unsent(), 0);
}

#[test]
fn what_another_device_of_one_s_own_says_settles_nothing() {
    let mut model = model();
    type_in(&mut model, "one");
    model.on_record(said(41, "ann", "one"));
    assert_eq!(talk(&model), ["✓one", "…one"]);
}

#[test]
fn a_refusal_says_why_and_stays() {
    let mut model = model();
    type_in(&mut model, "one");
    type_in(&mut model, "two");
    model.on_refused(0, "too \x1blong");
    assert_eq!(talk(&model), ["!one (too ␛long)", "…two"]);
    assert_eq!(model.unsent(), 1);
    model.on_refused(0, "again");
    assert_eq!(model.len(), 2);
}

#[test]
fn lines_that_begin_with_a_slash_are_commands() {
    let mut model = model();
    assert_eq!(type_in(&mut model, "/quit"), Some(Action::Quit));
    assert_eq!(type_in(&mut model, "/dance"), None);
    assert_eq!(talk(&model)[0], "-there is no command /dance; /help lists them");
    assert_eq!(type_in(&mut model, "//dance"), Some(Action::Send { id: 0, text: "/dance".to_owned() }));
    assert_eq!(type_in(&mut model, "  "), None);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(model.on_key(control('c')), Some(Action::Quit));
    assert_eq!(model.on_key(control('d')), Some(Action::Quit));
    press(&mut model, KeyCode::Char('x'));
    assert_eq!(model.on_key(control('d')), None);
}

#[test]
fn paging_up_keeps_its_place_and_fetches_at_the_top() {
    let mut model = model();
    for seq in 41..51 {
        model.on_record(said(seq, "bob", &seq.to_string()));
    }
    assert_eq!(screen(&model), ["47", "48", "49", "50"]);
    assert_eq!(press(&mut model, KeyCode::PageUp), None);
    assert_eq!(screen(&model), ["44", "45", "46", "47"]);
    model.on_record(said(51, "bob", "51"));
    assert_eq!(screen(&model), ["44", "45", "46", "47"], "new lines do not move it");
    assert_eq!(press(&mut model, KeyCode::PageUp), None);
    assert_eq!(press(&mut model, KeyCode::PageUp), Some(Action::FetchOlder { start: 40 }));
    assert_eq!(screen(&model)[1..], ["41", "42", "43"], "below the rule of the day");
    assert_eq!(press(&mut model, KeyCode::PageUp), None, "one fetch at a time");
    model.on_page((38..41).map(|seq| said(seq, "eve", &seq.to_string())).collect(), Some(37));
    assert_eq!(screen(&model), ["40", "41", "42", "43"], "older lines do not move it either");
    assert_eq!(press(&mut model, KeyCode::PageUp), Some(Action::FetchOlder { start: 37 }));
    assert_eq!(screen(&model)[1..], ["38", "39", "40"]);
    model.on_page_failed("gone");
    assert_eq!(press(&mut model, KeyCode::PageUp), Some(Action::FetchOlder { start: 37 }), "asked again");
    model.on_page(vec![], None);
    assert_eq!(press(&mut model, KeyCode::PageUp), None, "there is no more");
    for _ in 0..10 {
        press(&mut model, KeyCode::PageDown);
    }
    assert!(model.scroll.follows());
    model.on_record(said(52, "bob", "52"));
    assert_eq!(screen(&model)[3], "52");
}

#[test]
fn a_short_talk_does_not_scroll_but_asks_for_more() {
    let mut model = model();
    assert_eq!(press(&mut model, KeyCode::PageUp), None, "nothing to scroll");
    model.on_record(said(41, "bob", "41"));
    assert_eq!(press(&mut model, KeyCode::PageUp), Some(Action::FetchOlder { start: 40 }));
    assert!(model.scroll.follows());
}

#[test]
fn lines_are_bounded_and_can_be_fetched_again() {
    let mut model = model();
    for seq in 1..=3_000 {
        model.on_record(said(seq, "bob", "x"));
    }
    assert_eq!(model.len(), LINES_MAX);
    assert_eq!(model.want_older(), Some(Action::FetchOlder { start: 1_000 }));
}

/// The texts with what became of them.
fn tagged(model: &Model) -> Vec<String> {
    let lines = (0..model.len()).filter_map(|at| model.line(at));
    lines
        .map(|line| match &line.body {
            Body::Said { text, tags, .. } => format!("{text}|{tags}"),
            Body::Note(text) => format!("-{text}"),
        })
        .collect()
}

#[test]
fn changes_show_where_they_were_made() {
    let mut model = model();
    model.on_record(said(41, "bob", "one"));
    model.on_record(said(42, "eve", "two"));
    model.on_record(change(43, RecordKind::EDIT, 41, "bob", "ONE"));
    model.on_record(change(44, RecordKind::REACTION, 41, "ann", "👍"));
    model.on_record(change(45, RecordKind::RECALL, 42, "eve", ""));
    model.on_record(change(46, RecordKind::EDIT, 7, "bob", "not shown here"));
    assert_eq!(tagged(&model), ["ONE|(edited) 👍 1", "(recalled)|"]);
    // Read again from the history, a message has its changes, which then come to nothing.
    let mut old = said(40, "bob", "old");
    old.apply(&change(47, RecordKind::EDIT, 40, "bob", "new"));
    model.on_page(vec![old], None);
    model.on_record(change(47, RecordKind::EDIT, 40, "bob", "new"));
    assert_eq!(tagged(&model)[0], "new|(edited)");
    assert_eq!(model.read(), Some(47), "changes are read, too");
}

#[test]
fn commands_mean_one_s_own_last_message_or_the_newest() {
    let mut model = model();
    assert_eq!(type_in(&mut model, "/edit x"), None);
    assert_eq!(talk(&model), ["-you have said nothing here yet: name a message by its number"]);
    model.on_record(own(41, 1, "mine"));
    model.on_record(own(42, 2, "gone"));
    model.on_record(change(43, RecordKind::RECALL, 42, "ann", ""));
    model.on_record(said(44, "bob", "his"));
    assert_eq!(type_in(&mut model, "/edit x"), Some(Action::Change(Outgoing::edit(41, "x"))));
    assert_eq!(type_in(&mut model, "/react 👍"), Some(Action::Change(Outgoing::react(44, "👍"))));
    assert_eq!(type_in(&mut model, "/who"), Some(Action::Ask(Request::Who(44))));
    assert_eq!(type_in(&mut model, "/help"), None);
    assert!(talk(&model).last().unwrap().contains("PageUp"));
}

#[test]
fn what_was_not_read_begins_below_a_note() {
    let mut model = model();
    model.had_read(41);
    for seq in 41..44 {
        model.on_record(said(seq, "bob", &seq.to_string()));
    }
    assert_eq!(talk(&model), ["41", "-not read yet:", "42", "43"]);
}

#[test]
fn who_reads_back_has_not_read_what_is_new() {
    let mut model = model();
    (41..51).for_each(|seq| model.on_record(said(seq, "bob", "x")));
    assert_eq!(model.read(), Some(50));
    press(&mut model, KeyCode::PageUp);
    assert_eq!(model.read(), None);
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.read(), Some(50));
}
