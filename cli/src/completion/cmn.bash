# Completion of cmn for bash: source <(cmn completion bash)
_cmn() {
    local IFS=$'\n'
    COMPREPLY=($(cmn __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f 1))
}
# Where cmn knows nothing better: files.
complete -o bashdefault -o default -F _cmn cmn
