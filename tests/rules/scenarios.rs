//! The scenarios of `tests/scenarios`: one test for each scenario and database.

use std::collections::BTreeSet;

macro_rules! scenarios {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            const TEXT: &str = include_str!(concat!("../scenarios/", stringify!($name), ".txt"));

            boundary_usage_tests::on_each_database! {
                async fn holds(database) {
                    let connected = boundary_usage::Database::connect(&database.url).await?;
                    boundary_usage_tests::scenario::run(TEXT, &connected).await
                }
            }
        })*
    };
}

scenarios! {
    a_collection_between_a_lost_reply_and_its_discovery
    a_hundred_threads
    a_lost_commit
    a_lost_commit_reply
    a_new_period_starts_from_nothing
    a_restarted_replica
    failed_flushes
    nothing_after_a_collection
    nothing_tracked
    one_activity
    replicas_share_a_user
    same_ids_count_once
    several_flushes_of_the_same_ids
    ten_flushes_with_a_new_workspace_each
    three_replicas
    tracks_beside_flushes
    workspaces_share_an_owner
}

#[test]
fn every_scenario_has_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let expected: BTreeSet<_> = NAMES.iter().map(|name| format!("{name}.txt")).collect();
    assert_eq!(files.collect::<BTreeSet<_>>(), expected);
}
