# bash completion for netmonctl, live values included. Needs python3-argcomplete.

_netmonctl() {
    local IFS=$'\013'
    # argcomplete reads the line from these variables and answers on descriptor 8.
    COMPREPLY=($(
        COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_TYPE="$COMP_TYPE" \
            _ARGCOMPLETE_COMP_WORDBREAKS="$COMP_WORDBREAKS" _ARGCOMPLETE=1 _ARGCOMPLETE_SUPPRESS_SPACE=1 \
            "$1" 8>&1 9>/dev/null 1>/dev/null 2>&1
    )) || COMPREPLY=()
    if [[ ${COMPREPLY[0]-} == *[=/:] ]]; then
        compopt -o nospace
    fi
}

complete -F _netmonctl netmonctl
