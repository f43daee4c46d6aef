# fish completion for netmonctl, live values included. Needs python3-argcomplete.

function __netmonctl_complete
    # argcomplete reads the line from these variables and answers on descriptor 8: values and their meaning.
    set -lx _ARGCOMPLETE 1
    set -lx _ARGCOMPLETE_SHELL fish
    set -lx _ARGCOMPLETE_IFS \n
    set -lx _ARGCOMPLETE_DFS \t
    set -lx _ARGCOMPLETE_SUPPRESS_SPACE 1
    set -lx COMP_LINE (commandline -p)
    set -lx COMP_POINT (string length -- (commandline -cp))
    set -lx COMP_TYPE 9
    netmonctl 8>&1 9>/dev/null 1>/dev/null 2>&1
end

complete --command netmonctl --no-files --arguments '(__netmonctl_complete)'
