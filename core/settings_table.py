"""Every setting: its name, what it may be, and its default.

The names and defaults are Celery's, so that an existing configuration loads; where qworker's default differs, a comment
says so. The last section holds the settings that only qworker has. Read by settings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .settings_values import (
    Converter,
    anything,
    boolean,
    choice,
    concurrency,
    content_types,
    integer,
    mapping,
    number,
    optional,
    seconds,
    text,
    words,
    zone,
)


class Option(NamedTuple):
    """One row of the table."""

    convert: Converter
    default: Any


_COUNT = integer(0)
_SERIALIZER = choice("json", "yaml", "msgpack", "pickle")

_GENERAL: Final[Mapping[str, Option]] = {
    "accept_content": Option(content_types, ["json"]),
    "result_accept_content": Option(optional(content_types), None),
    "enable_utc": Option(boolean, True),
    "imports": Option(words, []),
    "include": Option(words, []),
    # Celery's is None, which means UTC as well.
    "timezone": Option(zone, "UTC"),
}

_BEAT: Final[Mapping[str, Option]] = {
    "beat_enable_remote_control": Option(boolean, False),
    "beat_remote_control_max_tick_age": Option(optional(seconds), None),
    "beat_max_loop_interval": Option(seconds, 0),
    "beat_schedule": Option(mapping, {}),
    "beat_scheduler": Option(text, "celery.beat:PersistentScheduler"),
    "beat_schedule_filename": Option(text, "celerybeat-schedule"),
    "beat_sync_every": Option(_COUNT, 0),
    "beat_cron_starting_deadline": Option(optional(_COUNT), None),
}

_BROKER: Final[Mapping[str, Option]] = {
    # Celery's is amqp://; qworker runs without a server until it is told otherwise.
    "broker_url": Option(text, "sqlite:///qworker.db"),
    "broker_read_url": Option(optional(text), None),
    "broker_write_url": Option(optional(text), None),
    "broker_transport": Option(optional(text), None),
    "broker_transport_options": Option(mapping, {}),
    "broker_connection_timeout": Option(seconds, 4.0),
    "broker_connection_retry": Option(boolean, True),
    "broker_connection_retry_on_startup": Option(optional(boolean), None),
    "broker_connection_max_retries": Option(optional(_COUNT), 100),
    "broker_channel_error_retry": Option(boolean, False),
    "broker_failover_strategy": Option(optional(anything), None),
    "broker_heartbeat": Option(optional(seconds), 120),
    "broker_heartbeat_checkrate": Option(number, 3.0),
    "broker_login_method": Option(optional(text), None),
    "broker_native_delayed_delivery_queue_type": Option(text, "quorum"),
    "broker_pool_limit": Option(optional(_COUNT), 10),
    "broker_pool_acquire_timeout": Option(optional(seconds), None),
    "broker_use_ssl": Option(anything, False),
    "broker_host": Option(optional(text), None),
    "broker_port": Option(optional(_COUNT), None),
    "broker_user": Option(optional(text), None),
    "broker_password": Option(optional(text), None),
    "broker_vhost": Option(optional(text), None),
}

_RESULT: Final[Mapping[str, Option]] = {
    "result_backend": Option(optional(text), None),
    "result_backend_transport_options": Option(mapping, {}),
    "result_backend_always_retry": Option(boolean, False),
    "result_backend_base_sleep_between_retries_ms": Option(_COUNT, 10),
    "result_backend_max_sleep_between_retries_ms": Option(_COUNT, 10000),
    "result_backend_max_retries": Option(number, float("inf")),
    "result_cache_max": Option(integer(-1), -1),
    "result_chord_expires": Option(optional(seconds), None),
    "result_chord_join_timeout": Option(seconds, 3.0),
    "result_chord_retry_interval": Option(seconds, 1.0),
    "result_compression": Option(optional(text), None),
    "result_exchange": Option(text, "celeryresults"),
    "result_exchange_type": Option(text, "direct"),
    "result_expires": Option(optional(seconds), 86400),
    "result_extended": Option(boolean, False),
    "result_failure_expires": Option(optional(seconds), None),
    "result_persistent": Option(optional(boolean), None),
    # Results are JSON here; Celery allows any serializer.
    "result_serializer": Option(choice("json"), "json"),
    "dynamodb_endpoint_url": Option(optional(text), None),
    "redis_backend_use_ssl": Option(optional(mapping), None),
    "redis_db": Option(optional(_COUNT), None),
    "redis_host": Option(optional(text), None),
    "redis_max_connections": Option(optional(_COUNT), None),
    "redis_password": Option(optional(text), None),
    "redis_port": Option(optional(_COUNT), None),
    "redis_retry_on_timeout": Option(boolean, False),
    "redis_socket_connect_timeout": Option(optional(seconds), None),
    "redis_socket_keepalive": Option(boolean, False),
    "redis_socket_timeout": Option(optional(seconds), 120.0),
    "redis_username": Option(optional(text), None),
}

_TASK: Final[Mapping[str, Option]] = {
    # Celery's is False: it acks before the task runs, and loses it when the worker dies.
    "task_acks_late": Option(boolean, True),
    "task_acks_on_failure": Option(optional(boolean), None),
    "task_acks_on_failure_or_timeout": Option(boolean, True),
    "task_acks_on_timeout": Option(optional(boolean), None),
    "task_allow_error_cb_on_chord_header": Option(boolean, False),
    "task_always_eager": Option(boolean, False),
    "task_annotations": Option(optional(mapping), None),
    "task_compression": Option(optional(text), None),
    # Celery's is True: it creates whatever queue a message names.
    "task_create_missing_queues": Option(boolean, False),
    "task_create_missing_queue_exchange_type": Option(optional(text), None),
    "task_create_missing_queue_type": Option(text, "classic"),
    "task_default_delivery_mode": Option(anything, 2),
    "task_default_exchange": Option(optional(text), None),
    "task_default_exchange_type": Option(text, "direct"),
    "task_default_priority": Option(optional(_COUNT), None),
    "task_default_queue": Option(text, "celery"),
    "task_default_queue_type": Option(text, "classic"),
    "task_default_rate_limit": Option(optional(anything), None),
    "task_default_routing_key": Option(optional(text), None),
    "task_eager_propagates": Option(boolean, False),
    "task_ignore_result": Option(boolean, False),
    "task_inherit_parent_priority": Option(boolean, False),
    # Protocol 1 is read, but no longer written.
    "task_protocol": Option(choice(2), 2),
    "task_publish_retry": Option(boolean, True),
    "task_publish_retry_policy": Option(
        mapping, {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}
    ),
    "task_queue_max_priority": Option(optional(_COUNT), None),
    "task_queues": Option(optional(anything), None),
    "task_reject_on_worker_lost": Option(optional(boolean), None),
    "task_remote_tracebacks": Option(boolean, False),
    "task_repr_maxlevels": Option(_COUNT, 3),
    "task_retry_on_worker_lost": Option(boolean, False),
    "task_routes": Option(optional(anything), None),
    "task_send_sent_event": Option(boolean, False),
    "task_serializer": Option(_SERIALIZER, "json"),
    "task_soft_time_limit": Option(optional(seconds), None),
    "task_store_eager_result": Option(boolean, False),
    "task_store_errors_even_if_ignored": Option(boolean, False),
    "task_time_limit": Option(optional(seconds), None),
    "task_track_started": Option(boolean, False),
}

_WORKER: Final[Mapping[str, Option]] = {
    "worker_agent": Option(optional(text), None),
    "worker_autoscaler": Option(text, "celery.worker.autoscale:Autoscaler"),
    "worker_cancel_long_running_tasks_on_connection_loss": Option(boolean, False),
    "worker_concurrency": Option(optional(concurrency), None),
    "worker_consumer": Option(text, "celery.worker.consumer:Consumer"),
    "worker_deduplicate_successful_tasks": Option(boolean, False),
    "worker_detect_quorum_queues": Option(boolean, True),
    "worker_direct": Option(boolean, False),
    "worker_disable_prefetch": Option(boolean, False),
    "worker_disable_rate_limits": Option(boolean, False),
    "worker_enable_prefetch_count_reduction": Option(boolean, True),
    "worker_enable_remote_control": Option(boolean, True),
    "worker_enable_soft_shutdown_on_idle": Option(boolean, False),
    "worker_eta_task_limit": Option(optional(_COUNT), None),
    # Celery's is True: it throws away the handlers that the application has given to the root logger.
    "worker_hijack_root_logger": Option(boolean, False),
    "worker_log_color": Option(optional(boolean), None),
    "worker_log_datefmt": Option(optional(text), None),
    "worker_log_format": Option(text, "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"),
    "worker_lost_wait": Option(seconds, 10.0),
    "worker_max_memory_per_child": Option(optional(integer(1)), None),
    "worker_max_tasks_per_child": Option(optional(integer(1)), None),
    "worker_pool": Option(choice("prefork", "threads", "solo"), "prefork"),
    "worker_pool_putlocks": Option(boolean, True),
    "worker_pool_restarts": Option(boolean, False),
    "worker_pool_start_method": Option(text, "fork"),
    "worker_prefetch_multiplier": Option(_COUNT, 4),
    "worker_proc_alive_timeout": Option(seconds, 4.0),
    "worker_redirect_stdouts": Option(boolean, True),
    "worker_redirect_stdouts_level": Option(anything, "WARNING"),
    "worker_send_task_events": Option(boolean, False),
    "worker_soft_shutdown_timeout": Option(seconds, 0.0),
    "worker_state_db": Option(optional(text), None),
    "worker_task_log_datefmt": Option(optional(text), None),
    "worker_task_log_format": Option(
        text, "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
    ),
    "worker_timer": Option(optional(text), None),
    "worker_timer_precision": Option(seconds, 1.0),
}

_MONITORING: Final[Mapping[str, Option]] = {
    "control_exchange": Option(text, "celery"),
    "control_queue_durable": Option(boolean, False),
    "control_queue_exclusive": Option(boolean, True),
    "control_queue_expires": Option(optional(seconds), 10.0),
    "control_queue_ttl": Option(optional(seconds), 300.0),
    "event_exchange": Option(text, "celeryev"),
    "event_queue_durable": Option(boolean, False),
    "event_queue_exclusive": Option(boolean, True),
    "event_queue_expires": Option(optional(seconds), 60.0),
    "event_queue_prefix": Option(text, "celeryev"),
    "event_queue_ttl": Option(optional(seconds), 5.0),
    "event_serializer": Option(_SERIALIZER, "json"),
    "security_cert_store": Option(optional(text), None),
    "security_certificate": Option(optional(text), None),
    "security_digest": Option(text, "sha256"),
    "security_key": Option(optional(text), None),
    "security_key_password": Option(optional(anything), None),
}

# Result backends that only Celery has: their settings load and change nothing.
_ELSEWHERE: Final[Mapping[str, Any]] = {
    "arangodb_backend_settings": None,
    "azureblockblob_base_path": "",
    "azureblockblob_connection_timeout": 20,
    "azureblockblob_container_name": "celery",
    "azureblockblob_read_timeout": 120,
    "azureblockblob_retry_increment_base": 2,
    "azureblockblob_retry_initial_backoff_sec": 2,
    "azureblockblob_retry_max_attempts": 3,
    "cache_backend": None,
    "cache_backend_options": {},
    "cassandra_auth_kwargs": None,
    "cassandra_auth_provider": None,
    "cassandra_bundle_path": None,
    "cassandra_entry_ttl": None,
    "cassandra_keyspace": None,
    "cassandra_options": {},
    "cassandra_port": None,
    "cassandra_read_consistency": None,
    "cassandra_servers": None,
    "cassandra_table": None,
    "cassandra_write_consistency": None,
    "cosmosdbsql_collection_name": "celerycol",
    "cosmosdbsql_consistency_level": "Session",
    "cosmosdbsql_database_name": "celerydb",
    "cosmosdbsql_max_retry_attempts": 9,
    "cosmosdbsql_max_retry_wait_time": 30,
    "couchbase_backend_settings": None,
    "database_create_tables_at_setup": True,
    "database_engine_callback": None,
    "database_engine_options": {"pool_pre_ping": True, "pool_recycle": 3600},
    "database_short_lived_sessions": False,
    "database_table_names": None,
    "database_table_schemas": None,
    "database_url": None,
    "elasticsearch_max_retries": None,
    "elasticsearch_retry_on_timeout": None,
    "elasticsearch_save_meta_as_text": True,
    "elasticsearch_timeout": None,
    "gcs_base_path": "",
    "gcs_bucket": None,
    "gcs_project": None,
    "gcs_ttl": 0,
    "mongodb_backend_settings": None,
    "s3_access_key_id": None,
    "s3_base_path": None,
    "s3_bucket": None,
    "s3_endpoint_url": None,
    "s3_region": None,
    "s3_secret_access_key": None,
}

_OWN: Final[Mapping[str, Option]] = {
    # A larger message is dead-lettered unread; also the limit for what a compressed body may unpack to.
    "worker_max_message_bytes": Option(integer(1024), 64 * 1024 * 1024),
    # Messages wait, slots are free and nothing was fetched for so long: the consumer is rebuilt.
    "worker_deaf_timeout": Option(seconds, 30.0),
    # KiB; a task that grows above it is killed at once.
    "worker_max_memory_hard": Option(optional(integer(1)), None),
    # Up to so many tasks are added to worker_max_tasks_per_child, so that children do not all leave together.
    "worker_recycle_jitter": Option(_COUNT, 0),
    # Spans of OpenTelemetry; None = as the process has been set up.
    "task_tracing": Option(optional(boolean), None),
    # Coroutine tasks that one child runs at a time.
    "worker_async_concurrency": Option(integer(1), 10),
}

TABLE: Final[Mapping[str, Option]] = {
    **_GENERAL,
    **_BEAT,
    **_BROKER,
    **_RESULT,
    **_TASK,
    **_WORKER,
    **_MONITORING,
    **{name: Option(anything, default) for name, default in _ELSEWHERE.items()},
    **_OWN,
}
