# shellcheck shell=ash disable=SC2034
# A stub of netifd's functions for protocol handlers and of libubox's jshn. Every call that would reach netifd is written
# to $STUB/calls; the interface's options are the variables OPT_name (lists: one value a word).
rec() { printf '%s\n' "$*" >>"$STUB/calls"; }

for function in proto_config_add_string proto_config_add_boolean proto_config_add_array proto_config_add_int \
	proto_notify_error proto_block_restart proto_init_update proto_add_ipv4_address proto_add_ipv4_route \
	proto_add_data proto_close_data proto_send_update proto_add_host_dependency proto_kill_command proto_run_command \
	json_add_string json_add_int json_add_boolean; do
	eval "$function() { rec $function \"\$@\"; }"
done

json_get_var() { eval "$1=\"\${OPT_$2:-}\""; }
json_get_vars() {
	local name
	for name in "$@"; do json_get_var "$name" "$name"; done
}
json_get_values() { json_get_var "$1" "$2"; }
