//! Cases of whole deliveries.

ace_plugin::table_test!(channel super::PushNotification);
