# shellcheck shell=ash
# A stub of OpenWrt's functions for UCI: the sections of $STUB/uci (lines "TYPE NAME", then "option VALUE" lines as
# NAME.option=VALUE; a repeated line makes a list), the devices of $STUB/devices, procd's calls in $STUB/calls.
procd_note() { printf '%s\n' "$*" >>"$STUB/calls"; }
for function in procd_open_instance procd_set_param procd_append_param procd_close_instance procd_add_reload_trigger; do
	eval "$function() { procd_note $function \"\$@\"; }"
done

config_load() { [ -f "$STUB/uci" ]; }
config_get() { # VARIABLE SECTION OPTION [DEFAULT]
	local found
	found=$(sed -n "s/^$2\.$3=//p" "$STUB/uci" | head -n 1)
	eval "$1=\${found:-\${4:-}}"
}
config_get_bool() { config_get "$@"; }
config_list_foreach() { # SECTION OPTION FUNCTION
	local line
	sed -n "s/^$1\.$2=//p" "$STUB/uci" >"$STUB/list.$$"
	while IFS= read -r line; do "$3" "$line"; done <"$STUB/list.$$"
	rm -f "$STUB/list.$$"
}
config_foreach() { # FUNCTION TYPE ARGUMENTS...
	local call="$1" type="$2" name
	shift 2
	for name in $(sed -n "s/^$type \([a-z0-9]*\)$/\1/p" "$STUB/uci"); do "$call" "$name" "$@"; done
}

network_get_device() { eval "$1=\$(sed -n \"s/^$2 //p\" \"$STUB/devices\")"; }
network_find_wan6() { eval "$1=\$(sed -n 's/ .*//p' \"$STUB/devices\" | head -n 1)"; }
