"""Words that stand where a password could, and are none: what is said of passwords, and how sentences go on.

One language after another: English, German, Spanish, French, Italian, Polish, Dutch, Portuguese, Turkish, Swedish,
Danish and Norwegian, Finnish, Czech, Romanian, Russian and Ukrainian, Hungarian and Greek. A word that is missing is
masked once too often.
"""

from server.detection.reading import fold

_WORDS = """
wrong incorrect invalid expired correct right weak strong long short lost forgotten forgot missing empty blank secret
secure unknown required rejected refused blocked locked changed reset not no none too still always never what gone
broken useless hidden fine okay good bad accepted safe private confidential sensitive personal temporary new old same
different mandatory optional unchanged stolen leaked compromised hacked needed please help thanks cannot can't doesn't
didn't won't isn't invalid error unavailable disabled enabled set saved sent pending yes nothing something anything
the and but because since when why how where who which this that these those there here now again once twice today
yesterday case-sensitive outdated ridiculous annoying impossible unrecognized unrecognised unsafe insecure suspended
visible shown stored ask see above below attached reset-link login username email n/a n.a tbd unknown protected
credentials working failing known mine yours theirs ours ignored falsch richtig korrekt ungültig abgelaufen vergessen
geheim weg verloren gesperrt unbekannt nicht kein keine zu sicher unsicher leer neu alt kaputt gehackt gestohlen lang
kurz schwach stark erforderlich nötig bitte danke hilfe habe ich wurde geändert zurückgesetzt zurücksetzen inkorrekt
verschwunden fehlerhaft fehlt wieder immer noch schon auch gleich ändern keins geleakt bekannt privat wichtig siehe
gestern heute incorrecta incorrecto inválida válida errónea mala correcta olvidada olvidado perdida nueva vieja segura
insegura caducada bloqueada secreta por favor gracias no nunca siempre otra vez robada débil fuerte necesaria
obligatoria equivocada desconocida demasiado larga corta vencida incorrect refusé oublié oubliée perdu faux mauvais
bon correct expiré invalide bloqué secret nouveau ancien sûr changé inconnu obligatoire merci toujours pas plus jamais
trop court faible volé compromis valable valide rejeté erroné sbagliata errata scaduta dimenticata persa corretta
giusta nuova vecchia bloccata segreta sicura debole grazie sempre mai non rifiutata rubata obbligatoria sconosciuta
cambiata invalida valida smarrita troppo nieprawidłowe błędne złe zapomniane wygasło zablokowane nowe stare tajne
słabe silne proszę nie poprawne niepoprawne zmienione skradzione za odrzucone fout verkeerd verlopen vergeten kwijt
onjuist juist goed nieuw oud geheim geblokkeerd zwak sterk niet alsjeblieft bedankt gestolen onbekend ongeldig veilig
errada incorreta correta inválida expirada esquecida perdida nova velha secreta bloqueada fraca forte não nunca
obrigado obrigada roubada segura vencida yanlış hatalı geçersiz doğru unuttum unutuldu eski yeni zayıf güçlü lütfen
değil diyor çalışmıyor kabul etmiyor yok kayıp çalındı fel felaktigt ogiltigt glömt borta rätt nytt gammalt hemligt
spärrat svagt starkt inte tack stulet utgånget för okänt forkert ugyldig glemt væk rigtig ny gammel hemmelig spærret
svag stærk ikke tak stjålet udløbet feil riktig borte utløpt stjålet väärä vanhentunut unohtunut oikea uusi lukittu
heikko vahva ei kiitos väärin hukassa špatné neplatné zapomenuté správné nové staré tajné zablokované slabé silné
prosím chybné nefunguje vypršelo greșită incorectă invalidă uitată corectă nouă veche blocată slabă nu mulțumesc
expirată pierdută gresita неверный неправильный забыл забыла истёк просрочен заблокирован новый старый слабый не
спасибо пожалуйста правильный утерян сброшен невірний неправильний забув забула rossz hibás érvénytelen elfelejtettem
lejárt új régi helytelen nem λάθος ξέχασα έληξε λανθασμένος
"""
ORDINARY = frozenset(fold(_WORDS.lower()).split())
