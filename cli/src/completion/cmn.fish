# Completion of cmn for fish: cmn completion fish | source
function __cmn_complete
    set -l before (commandline -opc)
    set -l found (cmn __complete -- $before[2..-1] (commandline -ct) 2>/dev/null)
    if test -n "$found"
        printf '%s\n' $found
    else
        # Where cmn knows nothing better.
        __fish_complete_path (commandline -ct)
    end
end
complete -c cmn -f -a '(__cmn_complete)'
