# fish completion for vzctl, vzlist, vztmpl and the tools that check the node.
# Made by: vzctl completion fish >/etc/fish/completions/vzctl.fish

function __vzctl_complete
    # What the word means, without the quotes and backslashes it is typed with; a quote may still be open.
    set -l current (string unescape -- (commandline -ct))
    or set current (string trim --left --chars '"\'' -- (commandline -ct))
    set -l lines (vzctl __complete line (commandline -opc) "$current" 2>/dev/null)
    if test "$lines[1]" = ':paths'
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $lines
    end
end

for program in vzctl vzlist vztmpl vzubc vzcalc vzmemcheck vzcpucheck vzoversell vzpid vznnc vzcfgvalidate vzsplit vzcfgscale vztop vzstat vzmetrics vzbackup vzrestore vzquota vzmigrate vzimport vzdump
    complete -c $program -f -a '(__vzctl_complete)'
end
