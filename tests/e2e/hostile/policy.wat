;; A policy by hand, for what no compiler makes. The tests put text in place of four marks, which are comments here:
;;   component  in the component, before the module is instantiated
;;   after      in the component, once it is
;;   module     in the core module: tables, a start function
;;   check      in its `check`, before it lets the message pass
(component
  (import "openedx:ace/messages@1.1.0" (instance $messages (export "message" (type (sub resource)))))
  (alias export $messages "message" (type $message))
  (;component;)
  (core module $module
    (memory (export "memory") 1)
    (;module;)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    ;; The answers lie at 0, all zero: ok, and for `check` two empty lists.
    (func (export "enabled") (result i32) (i32.const 0))
    (func (export "check") (param i32) (result i32) (;check;) (i32.const 0)))
  (core instance $core (instantiate $module))
  (;after;)

  (type $denial' (record (field "channel-type" string) (field "reason" (option string))))
  (type $delay' (record (field "channel-type" string) (field "not-before" u64) (field "reason" (option string))))
  (type $result' (record (field "deny" (list $denial')) (field "delay" (list $delay'))))
  (type $own' (own $message))
  (func $enabled (result (result (error string)))
    (canon lift (core func $core "enabled") (memory (core memory $core "memory")) (realloc (core func $core "realloc"))))
  (func $check (param "message" $own') (result (result $result' (error string)))
    (canon lift (core func $core "check") (memory (core memory $core "memory")) (realloc (core func $core "realloc"))))

  ;; An exported function may use exported types only, and this is how they get their names.
  (component $named
    (import "message" (type $message (sub resource)))
    (type $own (own $message))
    (type $denial' (record (field "channel-type" string) (field "reason" (option string))))
    (import "denial" (type $denial (eq $denial')))
    (type $delay' (record (field "channel-type" string) (field "not-before" u64) (field "reason" (option string))))
    (import "delay" (type $delay (eq $delay')))
    (type $result' (record (field "deny" (list $denial)) (field "delay" (list $delay))))
    (import "policy-result" (type $result (eq $result')))
    (import "enabled" (func $enabled (result (result (error string)))))
    (import "check" (func $check (param "message" $own) (result (result $result (error string)))))
    (export $message-out "message" (type $message))
    (export $denial-out "denial" (type $denial))
    (export $delay-out "delay" (type $delay))
    (type $result-out' (record (field "deny" (list $denial-out)) (field "delay" (list $delay-out))))
    (export $result-out "policy-result" (type $result) (type (eq $result-out')))
    (export "enabled" (func $enabled))
    (type $own-out (own $message-out))
    (export "check" (func $check) (func (param "message" $own-out) (result (result $result-out (error string))))))
  (instance $policy (instantiate $named
    (with "message" (type $message))
    (with "denial" (type $denial'))
    (with "delay" (type $delay'))
    (with "policy-result" (type $result'))
    (with "enabled" (func $enabled))
    (with "check" (func $check))))
  (export "openedx:ace/policy@1.1.0" (instance $policy)))
