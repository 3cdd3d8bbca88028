#compdef cmn
# Completion of cmn for zsh: source <(cmn completion zsh)
_cmn() {
    local -a found
    found=("${(@f)$(cmn __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null | sed -e 's/:/\\:/g' -e 's/\t/:/')}")
    if [[ -n "$found" ]]; then
        _describe cmn found
    else
        # Where cmn knows nothing better.
        _files
    fi
}
# As a file in $fpath it is called; sourced, it has to be made known.
if [[ "$funcstack[1]" = _cmn ]]; then
    _cmn "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef _cmn cmn
fi
