use super::*;

fn plan(logs: &[&str]) -> RoomPlan {
    let mut planner = Planner::new("room".parse().unwrap());
    for log in logs {
        planner.log("a.log", log).unwrap();
    }
    planner.finish()
}

/// Compares the steps, written as `nick+` for a join, `nick-` for a leave, `nick!` for the last leave, `nick:text`.
#[track_caller]
fn check(logs: &[&str], want: &str) {
    let plan = plan(logs);
    let steps: Vec<_> = plan
        .steps
        .iter()
        .map(|step| {
            let nick = &plan.clients[step.client];
            match step.action {
                Action::Join => format!("{nick}+"),
                Action::Leave { last: false } => format!("{nick}-"),
                Action::Leave { last: true } => format!("{nick}!"),
                Action::Say(message) => {
                    assert_eq!(plan.messages[message].client, step.client);
                    format!("{nick}:{}", plan.messages[message].text)
                }
            }
        })
        .collect();
    assert_eq!(steps.join(" "), want);
}

#[test]
fn joins_leaves_and_renames_become_steps() {
    check(&["[09:00] <a> x"], "a+ a:x");
    check(&["=== a  has joined #u\n[09:00] <a> x\n[09:00] <a> y"], "a+ a:x a:y");
    check(&["=== a  has joined #u\n=== a  has joined #u"], "a+");
    check(&["=== a  has left #u []\n[09:00] <a> x"], "a+ a:x");
    check(&["[09:00] <a> x\n=== a  has left #u []\n[09:01] <a> y"], "a+ a:x a- a+ a:y");
    check(&["[09:00] <a> x\n=== a  has left #u []"], "a+ a:x a!");
    check(&["[09:00] <a> x\n=== a is now known as b\n[09:01] <b> y"], "a+ a:x a! b+ b:y");
    check(&["=== a is now known as b"], "b+");
    check(&["=== b  has joined #u\n=== a  has joined #u\n=== a is now known as b"], "b+ a+ a!");
    check(&["[09:00] <a> x\n=== a is now known as a"], "a+ a:x");
    check(&["[09:00] <a > x\n[09:00] <a> y\n[09:00] <a>"], "a+ a:x a:y a:");
    check(&["[09:00] <a> x", "[10:00] <a> y\n=== a  has left #u []"], "a+ a:x a:y a!");
}

#[test]
fn what_is_skipped_and_who_is_there_is_counted() {
    let plan = plan(&["[09:00] <a> x\n[09:00]  * a waves\n=== a is now known as b\n=== c nods\n=== c  has joined #u"]);
    assert_eq!((plan.skipped, plan.clients.len(), plan.clients_at_once), (2, 3, 2));
    assert_eq!(plan.messages[0].origin.to_string(), "a.log:1");
}

#[test]
fn the_lines_of_a_minute_are_spread_over_it() {
    let log = "[23:59] <a> 1\n[00:01] <a> 2\n[00:00] <a> 3\n[00:01] <a> 4\n[00:02] <a> 5";
    let seconds: Vec<_> = plan(&[log, "[07:30] <a> 6"]).steps.iter().map(|step| step.at.as_secs()).collect();
    assert_eq!(seconds, [0, 30, 120, 140, 160, 180, 240]);
}

#[test]
fn the_logs_that_come_with_the_project_are_understood() {
    let folder = std::env::var_os("PARLOR_IRC_LOGS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ubuntu-irc"),
        std::path::PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no logs in {}; PARLOR_IRC_LOGS names another folder", folder.display());
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    assert_eq!(files.len(), 31);
    let mut planner = Planner::new("room".parse().unwrap());
    let mut texts = 0;
    for file in &files {
        let content = std::fs::read_to_string(file).unwrap();
        texts += content.lines().filter(|line| line.starts_with('[') && line.get(7..9) == Some(" <")).count();
        planner.log(&file.display().to_string(), &content).unwrap();
    }
    let plan = planner.finish();
    assert_eq!((plan.messages.len(), texts), (39_213, 39_213));
    assert_eq!((plan.clients.len(), plan.skipped), (5_804, 355));
    let spoken = plan.steps.iter().filter(|step| matches!(step.action, Action::Say(_))).count();
    assert_eq!(spoken, 39_213, "every message is said");
}
